//! Archives in memory, whole and broken.

use std::io::Read;

use super::*;
use crate::Reference;
use crate::digest::{Hasher, HashingReader};
use crate::manifest::Platform;
use crate::tar::{Entry, TarWriter};

struct Sink;

impl LayerSink for Sink {
    type Error = Error;
    fn layer(
        &mut self,
        name: &str,
        _: Option<Digest>,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<LayerFacts, Error> {
        let io = |source| unwrap_io(name, source);
        let mut raw = HashingReader::new(data, Hasher::sha256());
        let plain = HashingReader::new(Decompressor::new(&mut raw).map_err(io)?, Hasher::sha256());
        let (diff_id, _) = plain.finish().map_err(io)?;
        let (blob, length) = raw.finish().map_err(io)?;
        assert_eq!(length, size);
        Ok(LayerFacts { diff_id: DiffId(diff_id), blob, size })
    }
}

fn layer() -> Vec<u8> {
    let mut out = TarWriter::new(Vec::new());
    let mut entry = Entry::new("file", Kind::File, 0o644);
    entry.size = 3;
    out.entry(&entry).unwrap();
    out.write_data(b"abc").unwrap();
    out.finish().unwrap()
}

fn image() -> ImageToWrite {
    let layer = layer();
    let digest = Digest::sha256(&layer);
    ImageToWrite {
        references: vec![Reference::parse("a/b:c").unwrap()],
        config_raw: format!(
            r#"{{"architecture":"{}","os":"linux","rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#,
            Platform::host().architecture
        )
        .into_bytes(),
        platform: Platform { variant: None, ..Platform::host() },
        layers: vec![LayerToWrite {
            blob: digest,
            size: layer.len() as u64,
            media_type: crate::manifest::media_type::LAYER,
        }],
    }
}

fn written(plan: &Plan) -> Vec<u8> {
    plan.write(Vec::new(), |_, tar| {
        tar.write_data(&layer()).unwrap();
        Ok::<_, Error>(())
    })
    .unwrap()
}

fn images(archive: &[u8]) -> Result<Vec<FoundImage>, Error> {
    read_tar(&mut &archive[..], &mut Sink)?.images(None)
}

#[test]
fn both_forms_are_read_back_and_are_the_same_each_time() {
    for plan in [plan_docker, plan_oci] {
        let archive = written(&plan(&[image()]).unwrap());
        assert!(archive == written(&plan(&[image()]).unwrap()));
        let found = images(&archive).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].config_raw, image().config_raw);
        assert_eq!(found[0].references[0].familiar(), "a/b:c");
        assert_eq!(found[0].layers[0].blob, image().layers[0].blob);
    }
}

#[test]
fn another_platform_is_not_found() {
    let archive = written(&plan_oci(&[image()]).unwrap());
    let contents = read_tar(&mut &archive[..], &mut Sink).unwrap();
    let error = contents.images(Some(&Platform::parse("linux/s390x").unwrap())).unwrap_err();
    assert!(error.to_string().contains("linux/s390x"), "{error}");
}

#[test]
fn a_cut_or_changed_archive_is_refused() {
    for plan in [plan_docker, plan_oci] {
        let archive = written(&plan(&[image()]).unwrap());
        for length in (0..archive.len() - 1024).step_by(128) {
            // Cut behind what is needed, the archive is still good for the same image.
            match images(&archive[..length]) {
                Ok(found) => {
                    assert_eq!(found.len(), 1, "{length}");
                    assert_eq!(found[0].config_raw, image().config_raw, "{length}");
                    assert!(length > archive.len() / 2, "{length}");
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        // A changed byte of content: the layer, or a document that a digest names.
        let mut needles = vec![&b"abc"[..], b"diff_ids\":[\"sha256:"];
        // Where there is a manifest.json, nobody asks the manifest.
        if !archive.windows(9).any(|window| window == b"RepoTags\"") {
            needles.push(b"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.m");
        }
        for needle in needles {
            let mut changed = archive.clone();
            let at = changed.windows(needle.len()).position(|window| window == needle).unwrap();
            changed[at + needle.len() - 1] ^= 1;
            assert!(images(&changed).is_err(), "{}", String::from_utf8_lossy(needle));
        }
    }
}

fn archive_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = TarWriter::new(Vec::new());
    for (name, data) in files {
        let mut entry = Entry::new(*name, Kind::File, 0o644);
        entry.size = data.len() as u64;
        out.entry(&entry).unwrap();
        out.write_data(data).unwrap();
    }
    out.finish().unwrap()
}

#[test]
fn legacy_docker_archives_with_linked_layers() {
    let image = image();
    let digest = Digest::sha256(&image.config_raw);
    let manifest = format!(
        r#"[{{"Config":"{}.json","RepoTags":["x:1"],"Layers":["one/layer.tar"]}}]"#,
        digest.hex()
    );
    let mut out = TarWriter::new(Vec::new());
    let mut add = |name: &str, data: &[u8]| {
        let mut entry = Entry::new(name, Kind::File, 0o644);
        entry.size = data.len() as u64;
        out.entry(&entry).unwrap();
        out.write_data(data).unwrap();
    };
    add("two/layer.tar", &layer());
    add(&format!("{}.json", digest.hex()), &image.config_raw);
    add("manifest.json", manifest.as_bytes());
    let mut link = Entry::new("one/layer.tar", Kind::Symlink, 0o777);
    link.link = b"../two/layer.tar".to_vec();
    out.entry(&link).unwrap();
    let found = images(&out.finish().unwrap()).unwrap();
    assert_eq!(found[0].references[0].familiar(), "x:1");
}

#[test]
fn wrong_documents_are_refused() {
    for (name, text) in [
        ("manifest.json", "{}"),
        ("manifest.json", "[1]"),
        ("manifest.json", r#"[{"Config":"x.json"}]"#),
        ("manifest.json", r#"[{"Config":"../../etc/passwd"}]"#),
        ("manifest.json", r#"[{"Config":"manifest.json","Layers":["manifest.json"]}]"#),
        ("index.json", "[]"),
        ("index.json", r#"{"schemaVersion":2,"manifests":[{"digest":"x","size":1}]}"#),
        ("index.json", r#"{"schemaVersion":2,"manifests":[{"digest":1,"size":-1}]}"#),
        ("repositories", "{}"),
        ("other", "x"),
    ] {
        assert!(images(&archive_of(&[(name, text.as_bytes())])).is_err(), "{name} {text}");
    }
    let large = [b"{\"".as_slice(), &vec![b'a'; 5 << 20], b"\":1}"].concat();
    let error = images(&archive_of(&[("manifest.json", &large)])).unwrap_err().to_string();
    assert!(error.contains("4 MiB"), "{error}");
    assert!(images(&archive_of(&[("../manifest.json", b"[]")])).is_err());
}
