//! Resource quantities (`100m`, `1.5`, `128Mi`, `1e3`) and what a pod requests. Pure.

use serde_json::Value;

use crate::controllers::object::{list, text};

/// CPU in thousandths of a core and memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Thousandths of a core.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
}

impl Requests {
    /// Reads `cpu` and `memory` of a resource map.
    pub fn of_map(map: &Value) -> Self {
        let read = |key: &str, scale: f64| {
            let parsed = map.get(key).and_then(parse).unwrap_or(0.0) * scale;
            // Rounded up, as a request of a part is a request of the whole; f64 to i64 saturates.
            parsed.ceil() as i64
        };
        Self {
            cpu: read("cpu", 1000.0),
            memory: read("memory", 1.0),
        }
    }

    /// Adds another's numbers.
    pub fn add(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory = self.memory.saturating_add(other.memory);
    }

    fn max(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
        }
    }
}

/// What a pod requests: containers and native sidecars together, or the largest init container
/// (beside the sidecars started before it), plus the overhead.
pub fn requests(pod: &Value) -> Requests {
    let of = |container: &Value| Requests::of_map(&container["resources"]["requests"]);
    let mut running = Requests::default();
    for container in list(pod, "/spec/containers") {
        running.add(&of(container));
    }
    let (mut sidecars, mut starting) = (Requests::default(), Requests::default());
    for container in list(pod, "/spec/initContainers") {
        let mut now = of(container);
        if text(container, "/restartPolicy") == "Always" {
            sidecars.add(&now);
            starting = starting.max(sidecars);
        } else {
            now.add(&sidecars);
            starting = starting.max(now);
        }
    }
    running.add(&sidecars);
    let mut total = running.max(starting);
    total.add(&Requests::of_map(&pod["spec"]["overhead"]));
    total
}

/// A quantity as a number in base units; `None` when malformed.
pub fn parse(quantity: &Value) -> Option<f64> {
    let text = match quantity {
        Value::Number(number) => return number.as_f64(),
        Value::String(text) => text.as_str(),
        _ => return None,
    };
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => {
            let exponent = exponent.strip_prefix(['e', 'E'])?;
            10f64.powi(exponent.parse::<i32>().ok()?)
        }
    };
    // Neither `0e999` (nothing times infinity) nor `1e999` is an amount.
    Some(number * factor).filter(|amount| amount.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_parse() {
        let number = |text: &str| parse(&json!(text));
        assert_eq!(number("100m"), Some(0.1));
        assert_eq!(number("1.5"), Some(1.5));
        assert_eq!(number("128Mi"), Some(134_217_728.0));
        assert_eq!(number("2e3"), Some(2000.0));
        assert_eq!(number("1E"), Some(1e18));
        assert_eq!(number("x"), None);
        assert_eq!(number(""), None);
        assert_eq!(number("5Zi"), None);
        assert_eq!((number("0e999"), number("1e999")), (None, None));
        assert_eq!(parse(&json!(2)), Some(2.0));
    }

    #[test]
    fn init_containers_count_by_their_maximum() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("50m");
        sidecar["restartPolicy"] = json!("Always");
        let pod = json!({"spec": {
            "containers": [container("100m"), container("100m")],
            "initContainers": [container("300m"), sidecar, container("220m")]}});
        assert_eq!(requests(&pod).cpu, 300);
        let pod = json!({"spec": {"containers": [container("300m")],
            "initContainers": [pod["spec"]["initContainers"][1]]}});
        assert_eq!(requests(&pod).cpu, 350);
    }
}
