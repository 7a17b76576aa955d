-- The table as the Node reference server makes it. On its database this changes nothing; on an empty one it is the
-- first step, so that both kinds go the same way from here on.
CREATE TABLE IF NOT EXISTS device_requests (
    device_code     text PRIMARY KEY,
    user_code       text NOT NULL,
    status          text NOT NULL DEFAULT 'pending',
    access_token    text,
    api_url         text,
    organization_id text,
    created_at      timestamptz NOT NULL DEFAULT now()
);
