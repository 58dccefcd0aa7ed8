//! IST0118: ports whose protocol nobody declared.

use super::{Facts, finding, is_system};
use lateen_model::Protocol;
use lateen_resources::kubernetes::IntOrString;
use lateen_resources::{Body, Code, Diagnostic, Kind};

/// Ports of Kubernetes services without protocol prefix or `appProtocol`.
pub fn port_names(facts: &Facts<'_>, out: &mut Vec<Diagnostic>) {
    let root = &facts.snapshot.mesh.root_namespace;
    for object in facts.objects.of(Kind::Service) {
        let Body::Service(service) = &object.body else {
            continue;
        };
        let namespace = &object.meta.namespace;
        let external = service.spec.type_ == "ExternalName";
        if is_system(namespace) || **namespace == **root || external || is_api_server(object) {
            continue;
        }
        for (i, port) in service.spec.ports.iter().enumerate() {
            let number = u16::try_from(port.port).unwrap_or_default();
            let transport = if port.protocol.is_empty() {
                "TCP"
            } else {
                &port.protocol
            };
            let app = port.app_protocol.as_deref();
            if Protocol::choose(number, &port.name, transport, app) != Protocol::Auto {
                continue;
            }
            let target = match &port.target_port {
                None => port.port.to_string(),
                Some(IntOrString::Int(n)) => n.to_string(),
                Some(IntOrString::String(s)) => s.clone(),
            };
            let message = format!(
                "Port name {} (port: {}, targetPort: {target}) doesn't follow the naming \
                 convention of Istio port.",
                port.name, port.port,
            );
            let field = format!("spec.ports[{i}].name");
            let remedy = "name it protocol-suffix, such as http-web, or set appProtocol";
            out.push(finding(Code::PORT_NAME, object, &field, message).remedy(remedy));
        }
    }
}

/// The API server's own Service: nobody names its port.
fn is_api_server(object: &lateen_resources::Object) -> bool {
    object.meta.namespace == "default" && object.meta.name == "kubernetes"
}
