-- The exchange and the delivery of a token become leases, which only their holder may end. Refused codes are counted. A full
-- table deletes logins by the network that started them. Without an OAuth app, each login has a client of its own.
-- `claimed_at` is still written, for instances of the version before this one that run at the same time.
ALTER TABLE device_requests
    ADD COLUMN lease text,                             -- the holder of the exchange or the delivery: a random id
    ADD COLUMN lease_until timestamptz,                -- when it expires
    ADD COLUMN refused_codes text NOT NULL DEFAULT '', -- digests of the authorization codes that Postiz refused
    ADD COLUMN exchanged_codes text NOT NULL DEFAULT '', -- and of those that were exchanged for the token
    ADD COLUMN client_network text NOT NULL DEFAULT '',
    ADD COLUMN client_machine text NOT NULL DEFAULT '',
    ADD COLUMN registered_client text,                 -- the OAuth client that was registered for this login,
    ADD COLUMN registered_verifier text,               -- its PKCE verifier, sealed like the token,
    ADD COLUMN redirect_uri text,                      -- and the callback that it was registered with
    DROP CONSTRAINT device_requests_status,
    ADD CONSTRAINT device_requests_status
        CHECK (status IN ('pending', 'exchanging', 'completed', 'delivering', 'redeemed', 'denied'));

-- Hosted databases give these roles all rights to new tables, and their API keys are public.
DO $$
DECLARE stranger text;
BEGIN
    FOR stranger IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated')
    LOOP
        EXECUTE format('REVOKE ALL ON device_requests, device_requests_schema FROM %I', stranger);
    END LOOP;
END $$;
