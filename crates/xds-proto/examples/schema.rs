//! Regenerates `schema/descriptors.binpb.gz` and `schema/table.bin`:
//! `cargo run -p lateen-xds-proto --example schema` (needs `protoc` with its include files).
//! The protos are those that the `envoy-types` crate carries and those in `schema/proto`.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use lateen_xds_proto::Message;
use lateen_xds_proto::google::protobuf::{EnumOptions, FileDescriptorSet, MessageOptions};

#[path = "../schema/compile.rs"]
mod compile;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let raw = std::env::temp_dir().join(format!("lateen-schema-{}.binpb", std::process::id()));
    run_protoc(&schema, &raw)?;
    let mut set = FileDescriptorSet::decode(std::fs::read(&raw)?.as_slice())?;
    std::fs::remove_file(&raw)?;
    strip(&mut set);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&set.encode_to_vec())?;
    let table = compile::compile(&set);
    println!("{} files, table {} bytes", set.file.len(), table.len());
    std::fs::write(schema.join("descriptors.binpb.gz"), packed.finish()?)?;
    std::fs::write(schema.join("table.bin"), table)?;
    Ok(())
}

/// Keeps names, numbers, types and map entries; drops options, services and extensions.
fn strip(set: &mut FileDescriptorSet) {
    fn message(item: &mut lateen_xds_proto::google::protobuf::DescriptorProto) {
        let map = item.options.as_ref().is_some_and(|o| o.map_entry());
        item.options = map.then(|| MessageOptions {
            map_entry: Some(true),
            ..Default::default()
        });
        item.extension.clear();
        for field in &mut item.field {
            field.options = None;
        }
        for oneof in &mut item.oneof_decl {
            oneof.options = None;
        }
        item.nested_type.iter_mut().for_each(message);
        item.enum_type.iter_mut().for_each(enumeration);
    }
    fn enumeration(item: &mut lateen_xds_proto::google::protobuf::EnumDescriptorProto) {
        let alias = item.options.as_ref().is_some_and(|o| o.allow_alias());
        item.options = alias.then(|| EnumOptions {
            allow_alias: Some(true),
            ..Default::default()
        });
        for value in &mut item.value {
            value.options = None;
        }
    }
    for file in &mut set.file {
        file.options = None;
        file.source_code_info = None;
        file.service.clear();
        file.extension.clear();
        file.message_type.iter_mut().for_each(message);
        file.enum_type.iter_mut().for_each(enumeration);
    }
}

fn run_protoc(schema: &Path, out: &Path) -> Result<()> {
    let crate_protos = envoy_types_dir()?.join("proto");
    let mut roots: Vec<PathBuf> = std::fs::read_dir(&crate_protos)?
        .map(|entry| {
            let root = entry?.path();
            // cel-spec keeps its protos one folder deeper.
            let inner = root.join("proto");
            Ok(if inner.is_dir() { inner } else { root })
        })
        .collect::<Result<_>>()?;
    roots.push(schema.join("proto"));
    roots.sort();
    let mut files: Vec<PathBuf> = Vec::new();
    for root in &roots {
        let mut here = Vec::new();
        collect(root, &mut here)?;
        for file in here {
            files.push(file.strip_prefix(root)?.to_owned());
        }
    }
    files.sort();
    let mut protoc = Command::new("protoc");
    for root in &roots {
        protoc.arg("-I").arg(root);
    }
    let well_known = [
        "any",
        "duration",
        "empty",
        "field_mask",
        "struct",
        "timestamp",
        "wrappers",
    ];
    protoc
        .arg("--include_imports")
        .arg(format!("--descriptor_set_out={}", out.display()))
        .args(well_known.map(|name| format!("google/protobuf/{name}.proto")))
        .args(files);
    let status = protoc.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("protoc: {status}").into())
    }
}

fn collect(folder: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, out)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            out.push(path);
        }
    }
    Ok(())
}

/// Where cargo unpacked the `envoy-types` crate.
fn envoy_types_dir() -> Result<PathBuf> {
    let output = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()))
        .args(["metadata", "--format-version", "1"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("no packages")?;
    let package = packages
        .iter()
        .find(|package| package["name"] == "envoy-types")
        .ok_or("envoy-types is not in the dependency graph")?;
    let manifest = package["manifest_path"].as_str().ok_or("no manifest")?;
    Ok(Path::new(manifest).with_file_name(""))
}
