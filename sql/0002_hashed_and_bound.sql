-- From the reference's table to this server's: device codes become hashes, a login is bound to a browser, and it has a time of
-- expiry. Logins in flight continue, since the clients' codes hash to the new keys. After this step, in the same
-- transaction, the server encrypts the tokens that the reference stored in clear.

-- The reference's column types vary with its version.
ALTER TABLE device_requests
    ALTER COLUMN device_code TYPE text,
    ALTER COLUMN user_code TYPE text,
    ALTER COLUMN status TYPE text,
    ALTER COLUMN access_token TYPE text,
    ALTER COLUMN api_url TYPE text,
    ALTER COLUMN organization_id TYPE text,
    ALTER COLUMN created_at TYPE timestamptz;

-- The reference could issue a user code twice and complete a login without a token, and it never deleted a login.
DELETE FROM device_requests
    WHERE created_at IS NULL
       OR created_at < now() - interval '30 minutes'
       OR status NOT IN ('pending', 'completed')
       OR (status = 'completed' AND coalesce(access_token, '') = '');
DELETE FROM device_requests AS older USING device_requests AS newer
    WHERE older.status = 'pending' AND newer.status = 'pending'
      AND older.user_code = newer.user_code
      AND (older.created_at, older.device_code) < (newer.created_at, newer.device_code);

UPDATE device_requests SET device_code = encode(sha256(convert_to(device_code, 'UTF8')), 'hex');

ALTER TABLE device_requests
    ALTER COLUMN created_at SET DEFAULT now(),
    ALTER COLUMN created_at SET NOT NULL,
    ADD COLUMN state text,                          -- SHA-256 of the OAuth state
    ADD COLUMN browser text,                        -- SHA-256 of the browser's cookie
    ADD COLUMN scope text,
    ADD COLUMN client_address text NOT NULL DEFAULT '',
    ADD COLUMN client_agent text NOT NULL DEFAULT '',
    ADD COLUMN claimed_at timestamptz,              -- when the running exchange was claimed
    ADD COLUMN expires_at timestamptz;
UPDATE device_requests SET expires_at = created_at + interval '15 minutes';
ALTER TABLE device_requests
    ALTER COLUMN expires_at SET NOT NULL,
    ADD CONSTRAINT device_requests_status
        CHECK (status IN ('pending', 'exchanging', 'completed', 'denied', 'redeemed'));

-- Drops the reference's index on user_code, whatever its name. The unique index below replaces it.
DO $$
DECLARE old_index regclass;
BEGIN
    FOR old_index IN
        SELECT i.indexrelid::regclass FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[])
        WHERE i.indrelid = 'device_requests'::regclass AND NOT i.indisunique AND a.attname = 'user_code'
    LOOP
        EXECUTE 'DROP INDEX ' || old_index;
    END LOOP;
END $$;

CREATE UNIQUE INDEX device_requests_undecided_user_code ON device_requests (user_code)
    WHERE status IN ('pending', 'exchanging');
CREATE UNIQUE INDEX device_requests_state ON device_requests (state) WHERE state IS NOT NULL;
CREATE INDEX device_requests_expires_at ON device_requests (expires_at);
