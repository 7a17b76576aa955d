-- The table as the Node reference server makes it. On that server's database this step changes nothing; on an empty database it
-- makes the table, so that all further steps are the same for both.
CREATE TABLE IF NOT EXISTS device_requests (
    device_code     text PRIMARY KEY,
    user_code       text NOT NULL,
    status          text NOT NULL DEFAULT 'pending',
    access_token    text,
    api_url         text,
    organization_id text,
    created_at      timestamptz NOT NULL DEFAULT now()
);
