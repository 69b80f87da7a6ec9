//! What older versions of the API have otherwise, where clients depend on it.
//!
//! The engine's types are those of the newest version. Docker's own list of changes says from which version on
//! a field is gone or has another form; what clients of before then expect is put back here.

use serde_json::{Value, json};

/// From this version on nothing is changed.
pub(crate) const AS_IT_IS: u32 = 45;

/// An image in a list.
pub(crate) fn image_summary(image: &mut Value, version: u32) {
    virtual_size(image, version);
    if version < 43 {
        for (field, none) in [("RepoTags", "<none>:<none>"), ("RepoDigests", "<none>@<none>")] {
            if let Some(names) = image.get_mut(field)
                && names.as_array().is_none_or(Vec::is_empty)
            {
                *names = json!([none]);
            }
        }
    }
}

/// `images/NAME/json`.
pub(crate) fn image_inspect(image: &mut Value, version: u32) {
    virtual_size(image, version);
    if version < 45
        && let Some(fields) = image.as_object_mut()
    {
        // Compose 1 takes the volumes of an image from it.
        let config = fields.get("Config").filter(|c| c.is_object()).cloned();
        fields.insert("Container".into(), "".into());
        fields.insert("ContainerConfig".into(), config.unwrap_or_else(|| json!({})));
    }
}

/// The size once more, under its old name.
fn virtual_size(image: &mut Value, version: u32) {
    if version < 44
        && let Some(fields) = image.as_object_mut()
        && let Some(size) = fields.get("Size").cloned()
    {
        fields.insert("VirtualSize".into(), size);
    }
}

/// `system/df`.
pub(crate) fn disk_usage(usage: &mut Value, version: u32) {
    if let Some(images) = usage.get_mut("Images").and_then(Value::as_array_mut) {
        images.iter_mut().for_each(|image| image_summary(image, version));
    }
    if version < 42
        && let Some(fields) = usage.as_object_mut()
    {
        fields.insert("BuilderSize".into(), 0.into());
    }
}

/// `info`.
pub(crate) fn info(info: &mut Value, version: u32) {
    if version >= 25 {
        return;
    }
    // Names alone, not yet pairs.
    if let Some(options) = info.get_mut("SecurityOptions").and_then(Value::as_array_mut) {
        for option in options {
            let name = option.as_str().and_then(|text| {
                text.split(',').find_map(|pair| pair.strip_prefix("name=")).map(str::to_owned)
            });
            if let Some(name) = name {
                *option = name.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_of_then_expect() {
        let image = json!({"RepoTags": [], "RepoDigests": null, "Size": 7, "Config": {"A": 1}});
        let changed = |version, change: fn(&mut Value, u32)| {
            let mut value = image.clone();
            change(&mut value, version);
            value
        };
        assert_eq!(changed(51, image_summary), image);
        assert_eq!(changed(43, image_summary)["VirtualSize"], 7);
        let old = changed(42, image_summary);
        assert_eq!(old["RepoTags"], json!(["<none>:<none>"]));
        assert_eq!(old["RepoDigests"], json!(["<none>@<none>"]));
        assert_eq!(changed(45, image_inspect), image);
        assert_eq!(changed(44, image_inspect)["ContainerConfig"]["A"], 1);
        let mut usage = json!({"Images": [image]});
        disk_usage(&mut usage, 41);
        assert_eq!(
            (&usage["BuilderSize"], &usage["Images"][0]["VirtualSize"]),
            (&json!(0), &json!(7))
        );
        let mut host =
            json!({"SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"]});
        info(&mut host, 24);
        assert_eq!(host["SecurityOptions"], json!(["seccomp", "cgroupns"]));
    }
}
