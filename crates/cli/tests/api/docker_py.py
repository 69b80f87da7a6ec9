"""docker-py against the engine that DOCKER_HOST names, which has the image bb. Each area is a function."""

import io
import os
import tarfile
import threading
import time
import traceback

import docker
from docker.errors import APIError, BuildError, ContainerError, ImageLoadError, ImageNotFound, NotFound

client = docker.from_env()
api = client.api
NONE = {"network_mode": "none"}


def raises(kind, status, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        code = getattr(error, "response", None)
        assert status is None or (code is not None and code.status_code == status), error
        return str(error)
    raise AssertionError(f"{call} did not raise {kind}")


def system():
    assert client.ping()
    version = client.version()
    assert version["ApiVersion"] == "1.51" and version["MinAPIVersion"] == "1.24"
    info = client.info()
    assert info["OSType"] == "linux" and info["NCPU"] >= 1 and info["MemTotal"] > 0
    usage = client.df()
    assert len(usage["Images"]) == 1 and usage["LayersSize"] > 0
    raises(APIError, None, client.login, "a", "b", registry="127.0.0.1:1")


def run_and_logs():
    assert client.containers.run("bb", "echo hi", remove=True, **NONE) == b"hi\n"
    error = raises(ContainerError, None, client.containers.run, "bb", ["sh", "-c", "echo e >&2; exit 4"],
                   remove=True, **NONE)
    assert "exit status 4" in error and "e" in error, error
    raises(ImageNotFound, 404, api.inspect_image, "nosuch")
    raises(APIError, 400, client.containers.run, "bb", "nosuchprogram", **NONE)
    box = client.containers.run("bb", ["sh", "-c", "for i in 1 2 3; do echo $i; done; echo x >&2"], detach=True, **NONE)
    assert box.wait()["StatusCode"] == 0
    assert box.logs(stderr=False) == b"1\n2\n3\n"
    assert box.logs(stdout=False) == b"x\n"
    assert box.logs(stderr=False, tail=1) == b"3\n"
    first = box.logs(stderr=False, timestamps=True).split(b"\n")[0].split(b" ")
    assert first[1] == b"1" and first[0].endswith(b"Z")
    assert b"".join(box.logs(stream=True, follow=True, stderr=False)) == b"1\n2\n3\n"
    box.remove()


def follow_and_attach():
    box = client.containers.create("bb", ["sh", "-c", "read a; echo got $a; read b; echo and $b"], stdin_open=True, **NONE)
    socket = box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    box.start()
    lines = box.logs(stream=True, follow=True)
    socket._sock.sendall(b"one\n")
    assert next(lines) == b"got one\n"
    socket._sock.sendall(b"two\n")
    assert next(lines) == b"and two\n"
    assert list(lines) == []
    data = socket.read(8)
    assert data[:4] == b"\x01\0\0\0", data
    assert box.wait()["StatusCode"] == 0
    socket.close()
    box.remove()

    # With a terminal there are no headers.
    box = client.containers.create("bb", ["sh", "-c", "stty size; tty"], tty=True, **NONE)
    output = box.attach(stream=True, stdout=True, stderr=True, logs=False)
    box.start()
    text = b"".join(output)
    assert b"/dev/pts/0\r\n" in text or b"/dev/console\r\n" in text, text
    box.wait()
    box.remove()


def lifecycle():
    box = client.containers.run("bb", "sleep 1000", name="life", labels={"k": "v"}, detach=True, **NONE)
    box.reload()
    assert box.status == "running" and box.labels == {"k": "v"}
    assert [c.name for c in client.containers.list(filters={"label": "k=v"})] == ["life"]
    assert client.containers.list(filters={"status": "exited"}) == []
    assert "sleep" in str(box.top())
    stats = box.stats(stream=False)
    assert stats["pids_stats"]["current"] == 1 and stats["memory_stats"]["usage"] > 0
    stream = box.stats(stream=True, decode=True)
    one, two = next(stream), next(stream)
    assert one["read"] < two["read"] and two["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    stream.close()
    box.pause()
    box.reload()
    assert box.status == "paused"
    raises(APIError, 409, box.exec_run, "true")
    box.unpause()
    box.rename("life2")
    assert box.update(mem_limit="64m", memswap_limit="128m") is not None
    box.reload()
    assert box.attrs["HostConfig"]["Memory"] == 64 << 20 and box.name == "life2"
    raises(APIError, 409, box.remove)
    raises(APIError, 409, client.containers.create, "bb", "true", name="life2", **NONE)
    box.stop(timeout=0)
    box.stop(timeout=0)
    assert box.wait()["StatusCode"] == 137
    box.start()
    box.start()
    box.restart(timeout=0)
    box.kill("KILL")
    box.wait()
    raises(APIError, 409, box.kill)
    box.remove()
    raises(NotFound, 404, box.reload)
    raises(NotFound, 404, client.containers.get, "life2")
    client.containers.create("bb", "true", **NONE)
    assert len(client.containers.prune()["ContainersDeleted"]) >= 1


def wait_conditions():
    box = client.containers.create("bb", ["sh", "-c", "exit 5"], **NONE)
    said = {}
    threads = [threading.Thread(target=lambda c=c: said.update({c: box.wait(condition=c)["StatusCode"]}))
               for c in ["next-exit", "removed"]]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    assert box.wait(condition="not-running")["StatusCode"] == 0
    box.start()
    threads[0].join(20)
    assert said == {"next-exit": 5}, said
    box.remove()
    threads[1].join(20)
    assert said["removed"] == 5, said


def execs():
    box = client.containers.run("bb", "sleep 1000", detach=True, **NONE)
    code, output = box.exec_run(["sh", "-c", "echo out; echo err >&2; exit 6"])
    assert code == 6 and sorted(output.split()) == [b"err", b"out"], output
    code, (out, err) = box.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True)
    assert (code, out, err) == (0, b"out\n", b"err\n")
    said = box.exec_run("id -un", user="ann", environment={"A": "b"})
    assert said.output == b"ann\n", said
    assert box.exec_run("pwd", workdir="/tmp").output == b"/tmp\n"
    assert b"/dev/pts" in box.exec_run("tty", tty=True).output
    # Who starts it without a terminal gets headers, though the process has one.
    ident = api.exec_create(box.id, ["echo", "hello"], tty=True)["Id"]
    assert api.exec_start(ident) == b"hello\r\n"
    _, stream = box.exec_run("seq 3", stream=True)
    assert b"".join(stream) == b"1\n2\n3\n"
    _, socket = box.exec_run("cat", stdin=True, socket=True)
    socket._sock.sendall(b"hello")
    socket._sock.shutdown(1)
    assert socket.read(13) == b"\x01\0\0\0\0\0\0\x05hello"
    # Detached, and looked after later.
    ident = api.exec_create(box.id, ["sh", "-c", "sleep 0.3; exit 9"])["Id"]
    assert api.exec_inspect(ident)["ExitCode"] is None
    api.exec_start(ident, detach=True)
    assert api.exec_inspect(ident)["Running"]
    for _ in range(200):
        if not api.exec_inspect(ident)["Running"]:
            break
        time.sleep(0.05)
    found = api.exec_inspect(ident)
    assert found["ExitCode"] == 9 and found["ProcessConfig"]["entrypoint"] == "sh", found
    raises(APIError, 409, api.exec_start, ident)
    raises(NotFound, 404, api.exec_inspect, "0" * 64)
    raises(NotFound, 404, api.exec_inspect, "../../x")
    code, output = box.exec_run("nosuchprogram")
    assert code == 127 and b"not found" in output, (code, output)
    again = client.containers.run("bb", "false", detach=True, restart_policy={"Name": "always"}, **NONE)
    for _ in range(200):
        again.reload()
        if again.status == "restarting":
            break
        time.sleep(0.02)
    assert again.status == "restarting", again.status
    raises(APIError, 409, again.remove)
    again.remove(force=True)
    raises(APIError, 400, api.exec_start, api.exec_create(box.id, "nosuchprogram")["Id"], detach=True)
    box.remove(force=True)
    raises(NotFound, 404, api.exec_inspect, ident)


def archives():
    box = client.containers.create("bb", "sleep 1000", **NONE)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    assert box.put_archive("/tmp", buffer.getvalue())
    stream, stat = box.get_archive("/tmp/file")
    assert stat["name"] == "file" and stat["size"] == 5, stat
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        assert tar.extractfile("file").read() == b"hello"
    raises(NotFound, 404, box.get_archive, "/nosuch")
    raises(NotFound, 404, box.put_archive, "/nosuch", buffer.getvalue())
    kinds = {entry["Path"]: entry["Kind"] for entry in box.diff()}
    assert kinds["/tmp/file"] == 1, kinds
    with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as tar:
        assert "tmp/file" in [name.removeprefix("./") for name in tar.getnames()]
    image = box.commit("made", "1", message="why", author="me", changes=["ENV A=b"])
    assert image.tags == ["made:1"] and "A=b" in image.attrs["Config"]["Env"]
    assert image.history()[0]["Comment"] == "why"
    client.images.remove("made:1")
    box.remove()


def images():
    image = client.images.get("bb")
    assert image.tag("bb", "two")
    image.reload()
    assert sorted(image.tags) == ["bb:latest", "bb:two"]
    assert [i.id for i in client.images.list("bb")] == [image.id]
    data = b"".join(image.save(named=True))
    client.images.remove("bb:two")
    loaded = client.images.load(data)
    assert loaded[0].id == image.id
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    said = api.import_image_from_data(buffer.getvalue(), repository="imp", tag="1")
    assert "sha256:" in said, said
    client.images.remove("imp:1")
    raises(ImageNotFound, 404, client.images.remove, "nosuch")
    raises(APIError, 400, image.tag, "UPPER")
    # What is wrong with an archive is told in the answer's stream, as Docker does.
    try:
        client.images.load(b"nothing of the kind" * 100)
        raise AssertionError("a damaged archive was taken")
    except ImageLoadError as error:
        assert "archive" in str(error), error
    assert client.images.prune()["ImagesDeleted"] is None
    box = client.containers.create("bb", "true", **NONE)
    raises(APIError, 409, client.images.remove, "bb")
    box.remove()


def volumes():
    volume = client.volumes.create("vol", labels={"k": "v"})
    assert volume.attrs["Labels"] == {"k": "v"}
    mounted = {"vol": {"bind": "/data", "mode": "rw"}}
    client.containers.run("bb", ["sh", "-c", "echo 1 > /data/f"], volumes=mounted, remove=True, **NONE)
    assert client.containers.run("bb", "cat /data/f", volumes=mounted, remove=True, **NONE) == b"1\n"
    assert [v.name for v in client.volumes.list(filters={"label": "k=v"})] == ["vol"]
    box = client.containers.create("bb", "true", volumes=mounted, **NONE)
    raises(APIError, 409, volume.remove)
    box.remove()
    volume.remove()
    raises(NotFound, 404, client.volumes.get, "vol")
    client.volumes.create()
    assert len(client.volumes.prune()["VolumesDeleted"]) == 1


def events():
    since = time.time() - 1
    stream = client.events(decode=True, filters={"type": "container"})
    box = client.containers.run("bb", "true", detach=True, **NONE)
    heard = []
    for event in stream:
        if event["Actor"]["ID"] == box.id:
            heard.append(event["Action"])
        if "die" in heard:
            break
    stream.close()
    assert heard == ["create", "start", "die"], heard
    box.remove()
    past = client.events(decode=True, since=since, until=time.time() + 0.2, filters={"container": box.id})
    assert [e["Action"] for e in past] == ["create", "start", "die", "destroy"]


def networks():
    pool = docker.types.IPAMPool(subnet="10.77.0.0/24", gateway="10.77.0.1")
    network = client.networks.create("net", driver="bridge", labels={"k": "v"}, ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    assert network.attrs["IPAM"]["Config"][0]["Subnet"] == "10.77.0.0/24"
    assert [n.name for n in client.networks.list(filters={"label": "k=v"})] == ["net"]
    box = client.containers.run("bb", "sleep 1000", detach=True, network="net", name="web")
    box.reload()
    address = box.attrs["NetworkSettings"]["Networks"]["net"]["IPAddress"]
    assert address.startswith("10.77.0."), box.attrs["NetworkSettings"]
    output = client.containers.run("bb", "ping -c 1 -W 5 web", network="net", remove=True)
    assert address.encode() in output, output
    network.reload()
    assert [c.name for c in network.containers] == ["web"]
    raises(APIError, 403, network.remove)
    network.disconnect(box)
    network.connect(box, aliases=["other"], ipv4_address="10.77.0.50")
    assert b"10.77.0.50" in box.exec_run("ip -4 -o addr").output
    raises(APIError, 409, client.networks.create, "net", check_duplicate=True)
    raises(NotFound, 404, client.networks.get, "nosuch")
    box.remove(force=True)
    network.remove()
    client.networks.create("unused")
    assert client.networks.prune()["NetworksDeleted"] == ["unused"]
    box = client.containers.create("bb", "true", ports={"80/tcp": 18080, "81/udp": None})
    assert box.attrs["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] == "18080"
    box.remove()


def swarm():
    raises(APIError, 503, client.nodes.list)
    raises(APIError, 503, client.services.list)
    assert client.plugins.list() == []


def many_at_once():
    problems = []

    def work(number):
        own = docker.from_env(max_pool_size=1)
        try:
            for _ in range(3):
                output = own.containers.run("bb", f"echo {number}", remove=True, **NONE)
                assert output == f"{number}\n".encode(), output
        except Exception:
            problems.append(traceback.format_exc())
        finally:
            own.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, "\n".join(problems)


def builds():
    def tar(**files):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content.encode()))
        buffer.seek(0)
        return buffer

    file = "ARG V=1\nFROM bb AS one\nARG V\nCOPY a /a\nRUN echo out-$V && cat /a\nFROM one\nENV X=y\nCMD cat /a\n"
    context = dict(custom_context=True, encoding="gzip", **NONE)
    image, said = client.images.build(fileobj=tar(Dockerfile=file, a="content"), tag="built:1", labels={"k": "v"},
                                      buildargs={"V": "two"}, **context)
    lines = [line.get("stream", "") for line in said]
    assert "out-two\ncontent" in "".join(lines), lines
    assert lines[0].startswith("Step 1/7 : FROM bb"), lines
    assert "Step 7/7 : CMD cat /a\n" in lines, lines
    assert image.tags == ["built:1"] and image.labels == {"k": "v"}, image.attrs
    assert client.containers.run("built:1", remove=True, **NONE) == b"content"
    again, said = client.images.build(fileobj=tar(Dockerfile=file, a="content"), buildargs={"V": "two"},
                                      labels={"k": "v"}, **context)
    assert again.id == image.id
    assert sum("Using cache" in line.get("stream", "") for line in said) == 5
    quiet, _ = client.images.build(fileobj=tar(Dockerfile=file, a="content"), target="one", quiet=True, **context)
    assert quiet.id != image.id
    hosts, said = client.images.build(fileobj=io.BytesIO(b"FROM bb\nRUN cat /etc/hosts\n"),
                                      extra_hosts={"other": "10.1.2.3"}, shmsize=1 << 20, **NONE)
    assert any("10.1.2.3" in line.get("stream", "") for line in said)
    try:
        client.images.build(fileobj=io.BytesIO(b"FROM bb\nRUN echo why >&2; exit 7\n"), **NONE)
        raise AssertionError("a failed build went well")
    except BuildError as error:
        assert "The command '/bin/sh -c echo why >&2; exit 7' returned a non-zero code: 7" in error.msg, error
        assert any("exit code: 7" in line.get("stream", "") for line in error.build_log)
    message = raises(APIError, 400, client.images.build, fileobj=io.BytesIO(b"FORM bb\n"))
    assert "did you mean FROM" in message, message
    message = raises(APIError, 400, client.images.build, fileobj=tar(a="b"), **context)
    assert "Dockerfile" in message, message
    for made in (image, quiet, hosts):
        client.images.remove(made.id, force=True)
    pruned = api.prune_builds(all=True)
    assert len(pruned["CachesDeleted"]) >= 3, pruned


failed = 0
for area in [system, run_and_logs, follow_and_attach, lifecycle, wait_conditions, execs, archives, images, builds,
             volumes, events, networks, swarm, many_at_once]:
    began = time.time()
    try:
        area()
        print(f"ok {area.__name__} {time.time() - began:.1f} s", flush=True)
    except Exception:
        failed += 1
        print(f"FAILED {area.__name__}\n{traceback.format_exc()}", flush=True)
    for left in client.containers.list(all=True):
        if failed:
            left.remove(force=True)
os._exit(1 if failed else 0)
