#!/bin/sh
# Makes the secrets that docker-compose.yml reads, in the folder secrets. Those that are there stay.
# The folder is for its owner alone; the files in it are not, since the users in the containers,
# who are others, read them.
set -eu
cd "$(dirname "$0")/.."
mkdir -p -m 700 secrets
printf '*\n' > secrets/.gitignore

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

keep() { # file; its content comes from standard input
    if [ -s "secrets/$1" ]; then
        echo "secrets/$1 is there already"
    else
        cat > "secrets/$1"
        chmod 644 "secrets/$1"
        echo "secrets/$1 made"
    fi
}

random | keep grafana_password
random | keep postgres_superuser_password
random | keep postgres_password
keep shop.toml <<TOML
admin_token = "$(random)"

[database]
url = "postgresql://shop:$(cat secrets/postgres_password)@postgres/shop"
TOML
