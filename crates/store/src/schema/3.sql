-- Networks. docs/format-networks.md says what of them is in the kernel.
CREATE TABLE networks(
    id         TEXT PRIMARY KEY,     -- 64 hexadecimal digits
    name       TEXT NOT NULL UNIQUE,
    driver     TEXT NOT NULL,        -- bridge, macvlan, ipvlan
    bridge     TEXT UNIQUE,          -- the interface; NULL without one
    existing   INTEGER NOT NULL,     -- 1: the bridge is somebody else's
    internal   INTEGER NOT NULL,
    attachable INTEGER NOT NULL,
    ipv6       INTEGER NOT NULL,
    options    TEXT NOT NULL,        -- as they were given, JSON object
    labels     TEXT NOT NULL,        -- JSON object
    created_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE subnets(
    id         INTEGER PRIMARY KEY,
    network_id TEXT NOT NULL REFERENCES networks(id) ON DELETE CASCADE,
    prefix     TEXT NOT NULL,        -- 172.17.0.0/16
    range      TEXT,                 -- --ip-range
    gateway    TEXT,
    reserved   TEXT NOT NULL,        -- --aux-address, JSON object: name to address
    cursor     BLOB                  -- the last address given in order
) STRICT;
CREATE INDEX subnets_by_network ON subnets(network_id);

-- An address has a row from the first time it is given until its subnet goes.
CREATE TABLE addresses(
    subnet_id  INTEGER NOT NULL REFERENCES subnets(id) ON DELETE CASCADE,
    address    BLOB NOT NULL,        -- 4 or 16 bytes, so that they sort
    holder     TEXT,                 -- a container's ID; NULL: free
    released   INTEGER NOT NULL,     -- when it was given back, in nanoseconds since the epoch
    PRIMARY KEY (subnet_id, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX addresses_free ON addresses(subnet_id, released) WHERE holder IS NULL;
CREATE INDEX addresses_held ON addresses(holder) WHERE holder IS NOT NULL;

-- Which networks a container is connected to, whether it runs or not. The network may be gone.
CREATE TABLE endpoints(
    container_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
    network_id   TEXT NOT NULL,
    network      TEXT NOT NULL,      -- its name when they were connected
    id           TEXT NOT NULL,      -- 64 hexadecimal digits
    position     INTEGER NOT NULL,   -- in the order they were connected
    interface    TEXT NOT NULL,      -- inside, while it runs: eth0
    wanted       TEXT NOT NULL,      -- what was asked for, JSON object
    last         TEXT NOT NULL,      -- the addresses of the last run, JSON list
    PRIMARY KEY (container_id, network_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX endpoints_by_network ON endpoints(network_id);

CREATE TABLE ports(
    container_id   TEXT NOT NULL,
    protocol       INTEGER NOT NULL, -- 6, 17, 132
    host           TEXT NOT NULL,    -- 0.0.0.0 or :: for all
    host_port      INTEGER NOT NULL,
    container      TEXT NOT NULL,
    container_port INTEGER NOT NULL,
    PRIMARY KEY (protocol, host_port, host)
) STRICT, WITHOUT ROWID;
CREATE INDEX ports_by_container ON ports(container_id);

-- Processes that have reserved addresses and ports for a container that does not run yet.
CREATE TABLE starts(
    container_id TEXT PRIMARY KEY,
    pid          INTEGER NOT NULL,
    start_time   INTEGER NOT NULL    -- of the process, in clock ticks since boot
) STRICT, WITHOUT ROWID;
