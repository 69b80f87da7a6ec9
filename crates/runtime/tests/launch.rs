//! Containers really started.
mod common;

use common::{run_spec, spec};

#[test]
fn a_container_runs() {
    let output = run_spec(&spec(&[
        "sh",
        "-c",
        "echo $$; hostname; ls / ; id -u; mount; ls -l /dev; exit 3",
    ]))
    .unwrap();
    println!("{}", output.text);
    assert_eq!(output.code, 3);
    assert!(output.text.starts_with("1\ninside\n"), "{}", output.text);
}
