CREATE TABLE meta(
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE layers(
    diff_id    TEXT PRIMARY KEY,    -- sha256:…
    size       INTEGER NOT NULL,    -- bytes of file content
    tar_size   INTEGER NOT NULL,    -- bytes of the uncompressed archive
    created_ns INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE images(
    id           TEXT PRIMARY KEY,  -- sha256:… of the configuration document
    parent       TEXT,              -- image it was committed or built on, if known
    os           TEXT NOT NULL,
    architecture TEXT NOT NULL,
    variant      TEXT NOT NULL,
    created      TEXT,              -- RFC 3339, from the configuration
    size         INTEGER NOT NULL,  -- sum of the layers' sizes
    added_ns     INTEGER NOT NULL,  -- when it came into this store
    tagged_ns    INTEGER            -- when it was last tagged
) WITHOUT ROWID;

CREATE TABLE image_layers(
    image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,      -- 0 is the lowest
    diff_id  TEXT NOT NULL REFERENCES layers(diff_id),
    PRIMARY KEY (image_id, position)
) WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers(diff_id);

CREATE TABLE image_tags(
    reference TEXT PRIMARY KEY,     -- complete form, with a tag or a digest
    image_id  TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX image_tags_by_image ON image_tags(image_id);

CREATE TABLE volumes(
    name       TEXT PRIMARY KEY,
    driver     TEXT NOT NULL,
    anonymous  INTEGER NOT NULL,
    options    TEXT NOT NULL,       -- JSON object
    labels     TEXT NOT NULL,       -- JSON object
    created_ns INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE containers(
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    created_ns  INTEGER NOT NULL,
    state       TEXT NOT NULL,
    image_id    TEXT,
    config      BLOB NOT NULL,      -- JSON
    pid         INTEGER,
    start_time  INTEGER,            -- of the process, in clock ticks since boot
    boot_id     TEXT,
    started_ns  INTEGER,
    finished_ns INTEGER,
    exit_code   INTEGER,
    oom_killed  INTEGER NOT NULL DEFAULT 0,
    restarts    INTEGER NOT NULL DEFAULT 0,
    error       TEXT,
    runtime     BLOB                -- JSON; whatever else is known only while it runs
) WITHOUT ROWID;
CREATE INDEX containers_by_image ON containers(image_id);

CREATE TABLE container_volumes(
    container_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
    volume       TEXT NOT NULL,
    PRIMARY KEY (container_id, volume)
) WITHOUT ROWID;
CREATE INDEX container_volumes_by_volume ON container_volumes(volume);

CREATE TABLE events(
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ns    INTEGER NOT NULL,
    type       TEXT NOT NULL,
    action     TEXT NOT NULL,
    actor_id   TEXT NOT NULL,
    attributes TEXT NOT NULL        -- JSON object
);
