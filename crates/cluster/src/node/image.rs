//! The image catalogue: which programs stand behind an image name. Data comes from the caller; the
//! look-up is pure.

use std::collections::BTreeMap;

/// Which of the host's programs a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPrograms {
    /// Everything in the host's program directories.
    All,
    /// Only these names; missing ones are left out.
    Only(Vec<String>),
}

impl HostPrograms {
    /// A shell and the plain file tools that nearly every image has; no network clients.
    pub fn basic() -> Self {
        const NAMES: &str = "sh bash dash cat ls cp mv rm mkdir rmdir ln chmod chown touch echo \
            printf env printenv id whoami hostname uname date sleep true false test [ head tail \
            sort uniq wc cut tr tee grep egrep fgrep sed awk mawk gawk find xargs basename dirname \
            readlink realpath pwd ps kill pgrep pkill top free df du mount stat seq expr yes \
            getent which tar gzip gunzip zcat nproc tty stty clear reset tput less more vi md5sum \
            sha256sum base64 od mktemp timeout nohup nice install diff cmp ldd locale";
        Self::Only(NAMES.split_whitespace().map(str::to_owned).collect())
    }

    /// [`Self::basic`] and these.
    #[must_use]
    pub fn basic_and(names: &[&str]) -> Self {
        match Self::basic() {
            Self::Only(mut list) => {
                list.extend(names.iter().map(|n| (*n).to_owned()));
                Self::Only(list)
            }
            Self::All => Self::All,
        }
    }
}

/// What an image is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Program and leading arguments that always run; a container's `command` replaces it.
    pub entrypoint: Vec<String>,
    /// Arguments used when the container gives neither `command` nor `args`.
    pub command: Vec<String>,
    /// Environment of the image, overridden by the container's.
    pub env: Vec<(String, String)>,
    /// User and group when the container names none.
    pub user: (u32, u32),
    /// Working directory when the container names none.
    pub working_dir: String,
    /// Host programs on its search path.
    pub programs: HostPrograms,
    /// Further symbolic links: path, target.
    pub links: Vec<(String, String)>,
    /// Size in bytes for the "pulled" event.
    pub size: u64,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            entrypoint: Vec::new(),
            command: vec!["/bin/sh".to_owned()],
            env: Vec::new(),
            user: (0, 0),
            working_dir: "/".to_owned(),
            programs: HostPrograms::All,
            links: Vec::new(),
            size: 3_000_000,
        }
    }
}

/// Known images by repository path, without registry and tag.
///
/// A key such as `istio/examples-bookinfo-details-v1` also answers to any prefix of registry and
/// folders (`docker.io/istio/...`, `registry.istio.io/release/examples-bookinfo-details-v1`); the
/// last path segment decides, unless the key has more segments and the image matches those.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageCatalogue {
    images: BTreeMap<String, Image>,
}

/// An image name without a known meaning, in the parts that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageError {
    /// Not a valid reference.
    Invalid(String),
    /// Nothing in the catalogue.
    Unknown(String),
}

/// The repository path of a reference: without tag and digest.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or_default();
    let after_slash = name.rfind('/').map_or(0, |i| i + 1);
    match name[after_slash..].find(':') {
        Some(colon) => &name[..after_slash + colon],
        None => name,
    }
}

fn valid(reference: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
    let path = repository(reference);
    !path.is_empty()
        && reference.chars().all(allowed)
        && !path.starts_with('/')
        && !path.split('/').any(str::is_empty)
        && !reference.ends_with(':')
        && path
            .split('/')
            .next_back()
            .is_some_and(|s| !s.chars().any(|c| c.is_ascii_uppercase()))
}

impl ImageCatalogue {
    /// Adds an image under one or more names (see the type's text).
    pub fn add(&mut self, names: &[&str], image: &Image) {
        for name in names {
            self.images.insert((*name).to_owned(), image.clone());
        }
    }

    /// The image behind a reference as written in a pod.
    ///
    /// # Errors
    /// When the reference is malformed or unknown.
    pub fn find(&self, reference: &str) -> Result<&Image, ImageError> {
        if !valid(reference) {
            return Err(ImageError::Invalid(reference.to_owned()));
        }
        let mut path = repository(reference);
        loop {
            if let Some(image) = self.images.get(path) {
                return Ok(image);
            }
            match path.split_once('/') {
                Some((_, rest)) => path = rest,
                None => return Err(ImageError::Unknown(reference.to_owned())),
            }
        }
    }

    /// The hint for a person whose image is unknown.
    pub fn hint(&self) -> String {
        let names: Vec<&str> = self.images.keys().map(String::as_str).collect();
        format!(
            "this cluster runs programs of this machine and pulls nothing; known images (any registry, any tag): {}",
            names.join(", ")
        )
    }
}

/// The reference as container statuses show it: with registry and tag.
pub fn normalized(reference: &str) -> String {
    let path = repository(reference);
    let first = path.split('/').next().unwrap_or_default();
    let has_registry =
        path.contains('/') && (first.contains('.') || first.contains(':') || first == "localhost");
    let mut full = if has_registry {
        reference.to_owned()
    } else if path.contains('/') {
        format!("docker.io/{reference}")
    } else {
        format!("docker.io/library/{reference}")
    };
    if path.len() == reference.len() {
        full.push_str(":latest");
    }
    full
}

/// Whether the tag asks for a fresh pull by default.
pub fn is_latest(reference: &str) -> bool {
    !reference.contains('@')
        && (repository(reference).len() == reference.len() || reference.ends_with(":latest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> ImageCatalogue {
        let mut catalogue = ImageCatalogue::default();
        catalogue.add(&["alpine", "busybox"], &Image::default());
        let details = Image {
            user: (1000, 1000),
            ..Image::default()
        };
        catalogue.add(&["examples-bookinfo-details-v1"], &details);
        catalogue.add(&["lateen/pilot"], &Image::default());
        catalogue
    }

    #[test]
    fn any_registry_and_tag() {
        let catalogue = catalogue();
        for name in [
            "alpine",
            "alpine:3.20",
            "docker.io/library/alpine",
            "localhost:5000/alpine:x",
            "alpine@sha256:abc",
            "docker.io/lateen/pilot:0.1",
        ] {
            assert!(catalogue.find(name).is_ok(), "{name}");
        }
        let details = catalogue
            .find("docker.io/istio/examples-bookinfo-details-v1:1.17.0")
            .unwrap();
        assert_eq!(details.user, (1000, 1000));
        assert_eq!(
            catalogue.find("istio/examples-bookinfo-details-v1:0.2.3"),
            Ok(details)
        );
    }

    #[test]
    fn unknown_and_invalid() {
        let catalogue = catalogue();
        assert_eq!(
            catalogue.find("nginx:1"),
            Err(ImageError::Unknown("nginx:1".into()))
        );
        assert!(matches!(
            catalogue.find("other/pilot"),
            Err(ImageError::Unknown(_))
        ));
        for name in ["", "a b", "alpine:", "/alpine", "x//y", "Alpine"] {
            assert!(
                matches!(catalogue.find(name), Err(ImageError::Invalid(_))),
                "{name}"
            );
        }
        assert!(catalogue.hint().contains("alpine, busybox"));
    }

    #[test]
    fn names_in_statuses() {
        assert_eq!(normalized("alpine"), "docker.io/library/alpine:latest");
        assert_eq!(normalized("istio/x:1"), "docker.io/istio/x:1");
        assert_eq!(normalized("quay.io/x/y:1"), "quay.io/x/y:1");
        assert!(is_latest("alpine") && is_latest("a:latest") && !is_latest("a:1"));
    }
}
