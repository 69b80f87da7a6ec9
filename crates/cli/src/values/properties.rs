//! No parser panics, whatever it is given.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn nothing_panics(text in "(?s).{0,40}") {
        let _ = number::parse_bool(&text);
        let _ = number::parse_int(&text);
        let _ = number::parse_u16(&text);
        let _ = number::parse_cpus(&text);
        let _ = size::parse_swap(&text);
        let _ = duration::parse_duration(&text);
        let _ = time::parse_time(&text, 0);
        let _ = engine::detach::parse_keys(&text);
        let _ = mount::parse_mount(&text);
        let _ = mount::parse_volume(&text);
        let _ = mount::parse_tmpfs(&text);
        let _ = device::parse_device(&text);
        let _ = device::parse_weight_device(&text);
        let _ = device::parse_throttle_bps(&text);
        let _ = device::parse_cgroup_rule(&text);
        let _ = opts::parse_ulimit(&text);
        let _ = opts::parse_restart(&text);
        let _ = opts::parse_extra_host(&text);
        let _ = opts::parse_dns_search(&text);
        let _ = opts::parse_link(&text);
        let _ = opts::parse_sysctl(&text);
        let _ = port::parse_publish(&text, &mut port::Bindings::new());
        let _ = port::parse_expose(&text);
    }

    #[test]
    fn nothing_panics_on_what_looks_right(text in "[-+0-9.kmgtpibsh:/,=@a-d \u{b5}]{0,24}") {
        let _ = number::parse_int(&text);
        let _ = number::parse_cpus(&text);
        let _ = size::parse_size(&text);
        let _ = duration::parse_duration(&text);
        let _ = time::parse_time(&text, i64::MIN);
        let _ = mount::parse_mount(&format!("type=tmpfs,tmpfs-size={text}"));
        let _ = mount::parse_volume(&text);
        let _ = device::parse_device(&text);
        let _ = opts::parse_ulimit(&format!("nofile={text}"));
        let _ = port::parse_publish(&text, &mut port::Bindings::new());
        let _ = port::parse_expose(&text);
    }

    #[test]
    fn a_size_written_in_bytes_is_that_many(n in 0i64..(1 << 52)) {
        prop_assert_eq!(size::parse_size(&n.to_string()), Ok(n));
    }

    #[test]
    fn a_duration_in_nanoseconds_is_that_many(n in 0i64..(1 << 52)) {
        prop_assert_eq!(duration::parse_duration(&format!("{n}ns")), Ok(n));
    }
}
