//! The same script through both doors: `docker` over the API, and `wherry` itself.

use std::process::{Command, Output};

use crate::harness::{Engine, text};
use crate::server::Served;

/// Each line a command; what it prints and how it ends must be the same through both doors. `@` in front:
/// only the exit code is compared (what it prints differs from run to run).
const SCRIPT: &str = r#"
images --format {{.Repository}}:{{.Tag}}
run --rm --network none bb echo hello
run --rm --network none bb sh -c 'echo out; echo err >&2; exit 7'
run --rm --network none bb nosuchprogram
run --rm --network none bb /etc
run --rm --network none --entrypoint /bin/echo bb a b
run --rm --network none -e A=b -w /tmp -u 1000 bb sh -c 'echo $A; pwd; id -u'
run --rm --network none --read-only bb touch /x
run --rm --network none --memory 64m --cpus 0.5 --pids-limit 50 bb true
run --rm --network none --tmpfs /t:size=1m -v vol:/v bb sh -c 'echo 1 > /v/f; cat /v/f'
@run -d --name c1 --network none --label a=b bb sh -c 'echo one; echo two >&2; sleep 1000'
ps --format '{{.Names}} {{.Image}} {{.State}} {{.Label "a"}}'
ps -a --filter label=a=b --format {{.Names}}
ps --filter status=exited -q
logs c1
logs --tail 1 c1
exec c1 sh -c 'echo in; exit 3'
@exec c1 nosuchprogram
exec -e X=y -w /tmp -u ann c1 sh -c 'echo $X; pwd; id -un'
exec nope true
inspect -f '{{.State.Status}} {{.Config.Image}} {{.HostConfig.NetworkMode}} {{json .Config.Cmd}}' c1
inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{end}}' c1
inspect nope
top c1 -o args
diff c1
exec c1 touch /new
diff c1
rename c1 c2
rename nope x1
pause c2
exec c2 true
ps --format {{.State}}
unpause c2
update --memory 100m --memory-swap 200m c2
inspect -f {{.HostConfig.Memory}} c2
@stats --no-stream c2
rm c2
stop -t 1 c2
stop c2
start c2
restart -t 0 c2
kill -s TERM c2
kill c2
wait c2
inspect -f {{.State.ExitCode}} c2
@commit -m why -a me -c 'ENV N=1' c2 made:1
run --rm --network none made:1 sh -c 'echo $N; ls /new'
history --format '{{.CreatedBy}} {{.Comment}}' made:1
image inspect -f '{{.Config.Env}} {{.Os}}' made:1
tag made:1 other:2
images --format {{.Repository}}:{{.Tag}} --filter reference=other
@rmi other:2 made:1
rmi nope
rm c2
rm c2
volume create --label k=v v1
volume ls -q
volume inspect -f '{{.Name}} {{.Driver}} {{.Labels}}' v1
volume rm v1
volume rm v1
volume rm vol
@system df
@container prune -f
@image prune -f
@volume prune -f
run --rm --network none --restart always bb true
run --name bad/name --network none bb true
run --rm --network none --pull never nosuchimage
network create --subnet 10.9.0.0/24 --label a=b n0 extra
@network create --subnet 10.9.0.0/24 --label a=b n1
network create --subnet 10.9.0.0/24 n2
network create n1
@network ls
network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'
network inspect -f '{{.Name}} {{.Driver}} {{json .IPAM.Config}} {{.Labels}}' n1
network inspect nope
run --rm --network n1 --ip 10.9.0.7 bb sh -c 'ip -4 -o addr show eth0; ip route'
run --rm --network nope bb true
@run -d --name web --network n1 --network-alias w --ip 10.9.0.9 -p 127.0.0.1:8080:80 bb sleep 1000
@run --rm --network n1 bb ping -c 1 -W 5 w
port web
ps --filter name=web --format {{.Ports}}
network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}' n1
inspect -f '{{(index .NetworkSettings.Networks "n1").IPAddress}}' web
@network create --subnet 10.10.0.0/24 n3
network connect --alias again n3 web
inspect -f '{{range $name, $e := .NetworkSettings.Networks}}{{$name}} {{$e.IPAddress}} {{end}}' web
network disconnect n3 web
network disconnect n3 web
network rm n1
@rm -f web
network rm n1 n3
@network prune -f
create --name k1 --network none bb false
start -a k1
port k1
rm k1
"#;

fn docker() -> Option<&'static str> {
    let there = Command::new("docker").arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("not tested: there is no docker client here");
    }
    there.then_some("docker")
}

/// What differs from run to run in any case: ids.
fn comparable(bytes: &[u8]) -> String {
    let line = |line: &str| {
        line.split(' ')
            .map(|word| {
                let hex = word.trim_start_matches("sha256:").trim_start_matches("id:");
                let hex = hex.trim_matches(|c| matches!(c, '"' | '(' | ')'));
                let id = matches!(hex.len(), 12 | 64) && hex.bytes().all(|b| b.is_ascii_hexdigit());
                if id { "ID" } else { word }
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    text(bytes).lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Called as docker, it says what docker says.
fn as_docker(engine: &Engine) -> String {
    let linked = engine.path("docker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wherry"), &linked).unwrap();
    linked.to_str().unwrap().to_owned()
}

/// Runs the script by a program over the API, and by Wherry itself, and compares.
fn compare(program: impl Fn(&Served) -> String) {
    let served = Served::new();
    let program = program(&served);
    let own = Engine::new();
    let linked = as_docker(&own);
    let mut problems = Vec::new();
    for line in SCRIPT.lines().filter(|line| !line.is_empty()) {
        let (command, only_code) = match line.strip_prefix('@') {
            Some(rest) => (rest, true),
            None => (line, false),
        };
        let args = words(command);
        let theirs: Output = served
            .client("timeout")
            .args(["-s", "KILL", "60", &program])
            .args(&args)
            .output()
            .unwrap();
        let ours: Output = own.command_as(&linked).args(&args).output().unwrap();
        if theirs.status.code() != ours.status.code() {
            problems.push(format!(
                "{command}: {:?} over the API ({} {}), {:?} by itself ({} {})",
                theirs.status.code(),
                text(&theirs.stdout),
                text(&theirs.stderr),
                ours.status.code(),
                text(&ours.stdout),
                text(&ours.stderr)
            ));
        }
        let streams =
            [("stdout", &theirs.stdout, &ours.stdout), ("stderr", &theirs.stderr, &ours.stderr)];
        for (stream, theirs, ours) in streams {
            let (theirs, ours) = (comparable(theirs), comparable(ours));
            if theirs != ours && !only_code {
                problems.push(format!(
                    "{command}: {stream}\n  over the API: {theirs:?}\n  by itself:    {ours:?}"
                ));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    own.finish();
    served.finish();
}

#[test]
fn the_same_script_by_docker_and_by_wherry() {
    let Some(docker) = docker() else { return };
    compare(|_| docker.to_owned());
}

#[test]
fn the_same_script_by_wherry_over_the_api_and_by_itself() {
    compare(|served| as_docker(&served.engine));
}

/// Words of a line, with single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in line.split('\'').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
