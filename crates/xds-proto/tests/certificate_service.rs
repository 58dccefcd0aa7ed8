//! The certificate service's client against its server, in process.

use lateen_xds_proto::istio::certificate_service::{
    IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService,
    IstioCertificateServiceClient, IstioCertificateServiceServer, SERVICE,
};
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status};

/// Signs nothing: says back what it was asked, and who asked.
struct Echo;

impl IstioCertificateService for Echo {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller = request.metadata().get("authorization").cloned();
        let caller = caller.ok_or_else(|| Status::unauthenticated("no token"))?;
        let caller = caller
            .to_str()
            .map_err(|_| Status::internal("token"))?
            .to_owned();
        let asked = request.into_inner();
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: vec![asked.csr, asked.validity_duration.to_string(), caller],
        }))
    }
}

fn asked(csr: &str) -> Request<IstioCertificateRequest> {
    let mut request = Request::new(IstioCertificateRequest {
        csr: csr.into(),
        validity_duration: 86_400,
        ..Default::default()
    });
    let token = "Bearer t".parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    request
}

#[tokio::test]
async fn client_and_server_meet_in_process() {
    let server = IstioCertificateServiceServer::new(Echo);
    let mut client = IstioCertificateServiceClient::new(server);
    let answer = client.create_certificate(asked("PEM")).await.unwrap();
    assert_eq!(answer.into_inner().cert_chain, ["PEM", "86400", "Bearer t"]);
    let anonymous = IstioCertificateRequest::default();
    let status = client.create_certificate(anonymous).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(IstioCertificateServiceServer::<Echo>::NAME, SERVICE);
}
