"""The same stack by testcontainers: a database and a web server in a network, up, used, gone."""

import urllib.request

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

PAGE = r"""mkdir -p /www/cgi-bin
printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nnc db 5432 < /dev/null\n' > /www/cgi-bin/row
chmod +x /www/cgi-bin/row
echo web is ready
exec httpd -f -p 80 -h /www"""

with Network() as network:
    db = (
        DockerContainer("bb:latest")
        .with_network(network)
        .with_network_aliases("db")
        .with_env("NAME", "table")
        .with_command(["sh", "-c", 'echo "row of $NAME" > /row; echo db is ready; exec nc -ll -p 5432 -e cat /row'])
    )
    web = (
        DockerContainer("bb:latest")
        .with_network(network)
        .with_exposed_ports(80)
        .with_command(["sh", "-c", PAGE])
    )
    with db, web:
        wait_for_logs(db, "db is ready", timeout=30)
        wait_for_logs(web, "web is ready", timeout=30)
        code, output = web.exec(["sh", "-c", "nc db 5432 < /dev/null"])
        assert (code, output) == (0, b"row of table\n"), (code, output)
        port = web.get_exposed_port(80)
        address = f"http://127.0.0.1:{port}/cgi-bin/row"
        for attempt in range(50):
            try:
                answer = urllib.request.urlopen(address, timeout=5).read()
                break
            except OSError:
                import time

                time.sleep(0.1)
        assert answer == b"row of table\n", answer
        stdout, stderr = db.get_logs()
        assert b"db is ready" in stdout, (stdout, stderr)
    assert not network._docker.client.containers.list(all=True)
print("done")
