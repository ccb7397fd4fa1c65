"""The series of the shop, by their Prometheus names: what dashboards and alert rules may use."""

LISTENERS = {
    "shop_listener_records_total",
    "shop_listener_duration_seconds",
    "shop_listener_age_seconds",
    "shop_listener_lag",
    "shop_listener_oldest_seconds",
    "shop_listener_ready",
    "shop_listener_stalled",
}
DATABASES = {
    "shop_outbox_records",
    "shop_outbox_age_seconds",
    "shop_outbox_parked",
    "shop_outbox_published_total",
    "shop_database_wait_seconds",
}
API = {"http_server_request_duration_seconds", "shop_deadletters_waiting"}
BATCH = {"shop_fan_out_running", "shop_fan_out_age_seconds"}
ALL = LISTENERS | DATABASES | API | BATCH
