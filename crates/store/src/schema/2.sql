-- What registries call the layers that are here.
CREATE TABLE layer_blobs(
    blob       TEXT PRIMARY KEY,    -- digest of the layer as it travels
    diff_id    TEXT NOT NULL REFERENCES layers(diff_id) ON DELETE CASCADE,
    size       INTEGER NOT NULL,    -- bytes of it
    media_type TEXT NOT NULL,
    verified   INTEGER NOT NULL     -- 1: we saw that it is that layer; 0: a manifest says so
) WITHOUT ROWID;
CREATE INDEX layer_blobs_by_layer ON layer_blobs(diff_id);

-- Where such a blob was seen: a push mounts it from there.
CREATE TABLE blob_repositories(
    blob       TEXT NOT NULL REFERENCES layer_blobs(blob) ON DELETE CASCADE,
    repository TEXT NOT NULL,       -- domain/path
    seen_ns    INTEGER NOT NULL,
    PRIMARY KEY (blob, repository)
) WITHOUT ROWID;

-- Manifests as they were pulled or pushed, so that they can be pushed with the same digest.
CREATE TABLE manifests(
    digest     TEXT PRIMARY KEY,
    image_id   TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    media_type TEXT NOT NULL,
    raw        BLOB NOT NULL,
    added_ns   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX manifests_by_image ON manifests(image_id);

-- Indexes that were pulled whole, by the name they were pulled under.
CREATE TABLE indexes(
    reference  TEXT PRIMARY KEY REFERENCES image_tags(reference) ON DELETE CASCADE,
    digest     TEXT NOT NULL,
    media_type TEXT NOT NULL,
    raw        BLOB NOT NULL
) WITHOUT ROWID;

-- Images that only an index refers to: they stay as long as it.
CREATE TABLE index_images(
    reference  TEXT NOT NULL REFERENCES indexes(reference) ON DELETE CASCADE,
    image_id   TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    PRIMARY KEY (reference, image_id)
) WITHOUT ROWID;

-- Layers of pulls that were interrupted: kept for a while although no image has them yet.
CREATE TABLE layer_leases(
    diff_id    TEXT PRIMARY KEY,
    expires_ns INTEGER NOT NULL
) WITHOUT ROWID;

-- When a container was last made of the image.
ALTER TABLE images ADD COLUMN used_ns INTEGER;
