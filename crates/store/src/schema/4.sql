-- Results of build steps. What a step did and read is in its key; its layer is kept as long as the row is there.
CREATE TABLE build_cache(
    key         TEXT PRIMARY KEY,    -- a digest, see docs/build.md
    diff_id     TEXT NOT NULL,       -- the layer the step made
    epoch       INTEGER NOT NULL,    -- the newest time in it, in seconds since 1970
    description TEXT NOT NULL,       -- the instruction
    size        INTEGER NOT NULL,    -- bytes of file content
    created_ns  INTEGER NOT NULL,
    used_ns     INTEGER NOT NULL,
    uses        INTEGER NOT NULL     -- how often it was taken instead of doing the step again
) STRICT, WITHOUT ROWID;
CREATE INDEX build_cache_by_layer ON build_cache(diff_id);
