-- An exchange and the delivery of a token are leases that their holder alone may end; refused codes are counted; a full table
-- makes room by the network that a login was started from; where there is no OAuth app, each login has a client of its own.
-- `claimed_at` stays, and goes on being written, for instances of the version before this one that run beside a new one.
ALTER TABLE device_requests
    ADD COLUMN lease text,                             -- who holds the exchange or the delivery: a random id
    ADD COLUMN lease_until timestamptz,                -- when it ends by itself
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

-- Hosted databases give these roles all rights on new tables, and their keys are public.
DO $$
DECLARE stranger text;
BEGIN
    FOR stranger IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated')
    LOOP
        EXECUTE format('REVOKE ALL ON device_requests, device_requests_schema FROM %I', stranger);
    END LOOP;
END $$;
