//! What steps of builds share: caches, agents, and the signal that ends them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::builds::{build, build_fails, context};
use crate::harness::{Engine, text, until};

/// An agent that ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts a program of the host and the libraries it needs below a directory.
fn with_libraries(program: &str, root: &Path) {
    let list = Command::new("ldd").arg(program).output().unwrap();
    let list = text(&list.stdout);
    let libraries = list.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([program]) {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
}

#[test]
fn a_step_talks_to_an_agent() {
    if !Path::new("/usr/bin/ssh-agent").exists() {
        return;
    }
    let e = Engine::new();
    let file = "FROM bb\nCOPY host /\n\
        RUN --mount=type=ssh,required ssh-add -l && stat -c 'mode %a' $SSH_AUTH_SOCK\n\
        USER ann\n\
        RUN --mount=type=ssh,id=default,uid=1000,target=/agents/one echo \"as ann: $(ssh-add -l)\" at $SSH_AUTH_SOCK\n\
        USER root\n\
        RUN [ ! -e /run/buildkit ] && [ ! -e /agents ] && [ -z \"$SSH_AUTH_SOCK\" ]\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file)]);
    with_libraries("/usr/bin/ssh-add", &dir.join("host"));
    let said = build_fails(&e, &dir, &[]);
    assert!(said.contains("ssh agent default: not found"), "{said}");
    let said = build_fails(&e, &dir, &["--ssh", &format!("default={}", dir.display())]);
    assert!(said.contains("no agent's socket"), "{said}");
    let said = build_fails(&e, &dir, &["--ssh", "default"]);
    assert!(said.contains("SSH_AUTH_SOCK is not set"), "{said}");

    let (socket, key) = (e.path("agent.sock"), e.path("key"));
    let mut agent = Command::new("/usr/bin/ssh-agent");
    agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
    let _agent = Agent(agent.spawn().unwrap());
    until("the agent", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let quiet = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).arg(&key).env("SSH_AUTH_SOCK", &socket);
        let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(done.unwrap().success(), "{program}");
    };
    quiet("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f"]);
    quiet("ssh-add", &[]);
    let said = build(&e, &dir, &["--ssh", &format!("default={}", socket.display())]);
    let shown = Command::new("ssh-keygen").arg("-lf").arg(&key).output().unwrap();
    let shown = text(&shown.stdout);
    let print = shown.split_whitespace().nth(1).unwrap();
    assert_eq!(said.matches(print).count(), 2, "{said}");
    assert!(said.contains("as ann: 256") && said.contains("at /agents/one"), "{said}");
    assert!(said.contains("mode 600"), "{said}");
    // As the environment names it.
    let mut command = e.command();
    command.args(["build", "--no-cache", "--network", "none", "--ssh", "default"]).arg(&dir);
    let output = command.env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert!(text(&output.stderr).contains(print), "{}", text(&output.stderr));
    e.finish();
}

#[test]
fn locked_caches_wait_for_each_other_in_one_order() {
    let e = Engine::new();
    let mount =
        |id: &str, to: &str| format!("--mount=type=cache,id={id},target=/{to},sharing=locked");
    let mut file = String::new();
    for stage in 0..6 {
        let (first, second) = if stage % 2 == 0 { ("a", "b") } else { ("b", "a") };
        file.push_str(&format!("FROM bb AS s{stage}\n"));
        for _ in 0..3 {
            let (one, two) = (mount(first, "x"), mount(second, "y"));
            file.push_str(&format!(
                "RUN {one} {two} echo {stage} >> /x/n && echo {stage} >> /y/n\n"
            ));
        }
    }
    file.push_str("FROM bb\n");
    for stage in 0..6 {
        file.push_str(&format!("COPY --from=s{stage} /bin/sh /{stage}\n"));
    }
    // A cache in two places of a step is locked once.
    let (one, two) = (mount("a", "x"), mount("a", "z"));
    file.push_str(&format!("RUN {one} {two} cmp /x/n /z/n && echo $(wc -l < /x/n) lines\n"));
    let dir = context(&e, "ctx", &[("Dockerfile", &file)]);
    let said = build(&e, &dir, &[]);
    assert!(said.contains("18 lines"), "{said}");
    e.finish();
}

#[test]
fn a_build_is_given_up_in_the_middle_of_a_file() {
    let e = Engine::new();
    let file = "FROM bb AS a\nCOPY big /\nFROM bb AS b\nRUN sleep 1000\nFROM bb\nCOPY --from=a /x /\nCOPY --from=b /x /\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file)]);
    // It would take hours to read.
    fs::File::create(dir.join("big")).unwrap().set_len(8 << 40).unwrap();
    let mut child = e.spawn(["build", "--network", "none", dir.to_str().unwrap()]);
    until("the other step", || {
        e.run_root().join("running").read_dir().is_ok_and(|l| l.count() > 0)
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut code = None;
    until("the build's end", || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.and_then(|status| status.code()), Some(130));
    assert_eq!(fs::read_dir(e.data_root().join("containers")).unwrap().count(), 0);
    e.finish();
}

/// The shape of what most builds are: a compiler installed with a cache mount, a program compiled, and only it kept.
#[test]
fn a_program_is_built_and_only_it_is_kept() {
    const FILE: &str = "\
FROM bb AS compiler
RUN --mount=type=bind,from=packages,target=/packages --mount=type=cache,target=/var/cache/pkg \\
    cd /packages && for p in *.tar; do [ -e /var/cache/pkg/$p ] || { cp $p /var/cache/pkg/ && echo fetched $p; }; done; \\
    tar -xf /var/cache/pkg/cc.tar -C /
FROM compiler AS build
WORKDIR /src
COPY *.c ./
RUN cc -o hello main.c greet.c && ./hello
FROM scratch
COPY --from=build /bin/busybox /bin/sh
COPY --from=build --chmod=755 /src/hello /hello
USER 7
ENTRYPOINT [\"/hello\"]
";
    let e = Engine::new();
    let compiler =
        "#!/bin/sh\nout=$2; shift 2; { echo '#!/bin/sh'; cat \"$@\"; } > $out; chmod 755 $out\n";
    let files = [("Dockerfile", FILE), ("main.c", "echo main\n"), ("greet.c", "echo hello\n")];
    let dir = context(&e, "ctx", &files);
    let package = context(&e, "package", &[("bin/cc", compiler)]);
    let packages = e.path("packages");
    fs::create_dir_all(&packages).unwrap();
    let mut pack = std::process::Command::new("tar");
    pack.arg("--mode=755").arg("-C").arg(&package).arg("-cf").arg(packages.join("cc.tar")).arg(".");
    assert!(pack.status().unwrap().success());
    let packages = format!("packages={}", packages.display());
    let build = |more: &[&str]| build(&e, &dir, &[&["--build-context", &packages], more].concat());
    let said = build(&["-t", "one"]);
    assert!(said.contains("fetched cc.tar") && said.contains("hello\n"), "{said}");
    assert!(build(&["-t", "again"]).contains("0 steps done"));
    // What the cache mount has is not fetched again, and makes no difference.
    let said = build(&["-t", "two", "--no-cache"]);
    assert!(!said.contains("CACHED") && !said.contains("fetched cc.tar"), "{said}");
    build(&["-t", "three", "--verify"]);
    let id = |name: &str| e.inspect("{{.Id}}", name);
    for other in ["again", "two", "three"] {
        assert_eq!(id(other), id("one"), "{other}");
    }
    assert_eq!(e.ok(["run", "--rm", "--network", "none", "one"]), "main\nhello");
    assert!(e.ok(["builder", "du"]).contains("mount /var/cache/pkg"));
    e.finish();
}

#[test]
fn here_documents_are_the_shells_where_more_than_one_word_is_there() {
    let e = Engine::new();
    let file = "FROM bb\nRUN <<EOF cat\nfor cat\nEOF\nRUN <<EOF\necho for sh\nEOF\n\
        RUN <<A cat - <<B\nno A\nA\nonly B\nB\nRUN <<-'Q Q' cat\n\t$HOME\nQ Q\n";
    let said = build(&e, &context(&e, "ctx", &[("Dockerfile", file)]), &[]);
    for wanted in ["for cat\n", " for sh\n", " only B\n", " $HOME\n"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    e.finish();
}

#[test]
fn parents_are_kept_behind_a_dot() {
    let e = Engine::new();
    let file = "FROM bb AS b\nRUN mkdir -p /r/s/t && echo > /r/s/t/u\nFROM bb\n\
        COPY --parents src/./*/b src/a/*/./one.txt ./src/c/two.txt src/./c/ /p/\n\
        COPY --parents --from=b /r/s/./t/u /q/\nRUN find /p /q -type f | sort | tr '\\n' ' '\n";
    let files = [("Dockerfile", file), ("src/a/b/one.txt", "1"), ("src/c/two.txt", "2")];
    let said = build(&e, &context(&e, "ctx", &files), &[]);
    let wanted = "/p/a/b/one.txt /p/c/two.txt /p/one.txt /p/src/c/two.txt /q/t/u";
    assert!(said.contains(wanted), "{said}");
    e.finish();
}
