//! Joining a terminal to a container's.
#![allow(clippy::unwrap_used)]

mod screen;
mod world;

use rustix::process::Signal;
use screen::Screen;
use world::{World, wait_for};

const ROOT: &[&str] = &["--rootfs", "/"];

fn shell<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<&'a str> {
    [before, ROOT, after].concat()
}

#[test]
fn a_shell_has_a_size_and_an_exit_code() {
    let world = World::new();
    let mut screen =
        Screen::new(&mut world.command(&shell(&["run", "--rm", "-it", "-e", "PS1=$ "], &["sh"])));
    screen.until("$ ");
    assert!(screen.is_raw());
    screen.types("stty size\r");
    screen.until("31 97");
    screen.resize(40, 120);
    let mut tries = 0;
    // The new size arrives when it arrives.
    wait_for("the new size", || {
        tries += 1;
        screen.types("echo size $(stty size) end\r");
        let before = screen.seen.len();
        wait_for("an answer", || {
            screen.read();
            screen.seen[before..].contains("end\r\n")
        });
        screen.seen.contains("size 40 120 end")
    });
    screen.types("exit 7\r");
    assert_eq!(screen.end(), 7);
    assert!(!screen.is_raw());
    assert_eq!(world.ok(&["ps", "-aq"]), "");
}

#[test]
fn keys_detach_and_attach_comes_back() {
    let world = World::new();
    let mut screen = Screen::new(
        &mut world.command(&shell(&["run", "-it", "--name", "boat", "-e", "PS1=$ "], &["sh"])),
    );
    screen.until("$ ");
    screen.types("\x10\x11");
    assert_eq!(screen.end(), 0);
    assert!(!screen.is_raw());
    assert_eq!(world.ok(&["inspect", "-f", "{{.State.Running}}", "boat"]), "true");
    // Two at once hear the same; other keys detach only where they were asked for.
    let mut one = Screen::new(&mut world.command(&["attach", "boat"]));
    let mut two = Screen::new(&mut world.command(&["attach", "--detach-keys", "ctrl-a,d", "boat"]));
    wait_for("raw mode", || one.is_raw() && two.is_raw());
    one.types("\r");
    one.until("$ ");
    two.types("\r");
    two.until("$ ");
    one.types("echo to-$((40+2))\r");
    one.until("to-42");
    two.until("to-42");
    two.types("\x01d");
    assert_eq!(two.end(), 0);
    one.types("exit 4\r");
    assert_eq!(one.end(), 4);
    let mut again = Screen::new(&mut world.command(&["start", "-ai", "boat"]));
    again.until("$ ");
    again.types("exit 5\r");
    assert_eq!(again.end(), 5);
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    let world = World::new();
    world.ok(&shell(&["run", "-d", "--name", "boat"], &["sleep", "1000"]));
    let mut screen =
        Screen::new(&mut world.command(&["exec", "-it", "-e", "PS1=$ ", "boat", "sh"]));
    screen.until("$ ");
    screen.types("stty size\r");
    screen.until("31 97");
    screen.types("exit 9\r");
    assert_eq!(screen.end(), 9);
    assert!(!screen.is_raw());
}

#[test]
fn signals_are_passed_on_unless_told_otherwise() {
    let world = World::new();
    let trap = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut screen = Screen::new(&mut world.command(&shell(&["run", "--rm"], &["sh", "-c", trap])));
    screen.until("ready");
    screen.kill(Signal::TERM);
    screen.until("got it");
    assert_eq!(screen.end(), 9);
    let mut screen = Screen::new(&mut world.command(&shell(
        &["run", "-it", "--name", "boat", "--sig-proxy=false"],
        &["sh", "-c", trap],
    )));
    screen.until("ready");
    wait_for("raw mode", || screen.is_raw());
    screen.kill(Signal::TERM);
    assert_eq!(screen.end(), 143);
    assert!(!screen.is_raw());
    assert_eq!(world.ok(&["inspect", "-f", "{{.State.Running}}", "boat"]), "true");
}

#[test]
fn names_reach_a_terminal_without_escapes() {
    let world = World::new();
    world.ok(&shell(&["create", "--label", "a=\x1b[2Jx"], &["true"]));
    let mut screen = Screen::new(&mut world.command(&["ps", "-a", "--format", "{{.Labels}}|"]));
    wait_for("the label", || {
        screen.read();
        screen.seen.contains('|')
    });
    assert!(screen.seen.contains("a=\\u{1b}[2Jx|"), "{:?}", screen.seen);
    assert_eq!(screen.end(), 0);
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Labels}}|"]), "a=\x1b[2Jx|");
}
