#!/bin/sh
# Run by PostgreSQL's image when its data folder is new: the shop's role, which is no superuser, and
# its database.
set -eu
export SHOP_PASSWORD_FILE="${SHOP_PASSWORD_FILE:-/run/secrets/postgres_password}"
psql --set=ON_ERROR_STOP=1 --no-psqlrc --quiet --username="$POSTGRES_USER" --dbname=postgres <<'SQL'
\set password `cat "$SHOP_PASSWORD_FILE"`
CREATE ROLE shop LOGIN PASSWORD :'password';
CREATE DATABASE shop OWNER shop;
SQL
