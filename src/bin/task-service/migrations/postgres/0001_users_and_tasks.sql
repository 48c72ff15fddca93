-- Moments are Unix time in milliseconds, so that both databases share every statement.

CREATE TABLE users (
    id            TEXT   NOT NULL PRIMARY KEY,
    email         TEXT   NOT NULL UNIQUE,
    name          TEXT,
    password_hash TEXT   NOT NULL,
    created_at    BIGINT NOT NULL
);

-- No reference to users: with another issuer in front, users live elsewhere.
CREATE TABLE tasks (
    id          BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id     TEXT    NOT NULL,
    title       TEXT    NOT NULL,
    description TEXT,
    completed   BOOLEAN NOT NULL,
    created_at  BIGINT  NOT NULL,
    updated_at  BIGINT  NOT NULL
);

CREATE INDEX tasks_of_user ON tasks (user_id, id);
