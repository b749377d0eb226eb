//! A service that receives callbacks, and answers what it is told to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[derive(Clone, Default)]
pub(crate) struct Receiver {
    received: Arc<Mutex<Vec<Bytes>>>,
    statuses: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    /// Answers with these statuses in turn, then 200. Returns itself and the URL to post to.
    pub(crate) async fn start(statuses: impl IntoIterator<Item = u16>) -> (Self, String) {
        let receiver =
            Self { statuses: Arc::new(Mutex::new(statuses.into_iter().collect())), ..Self::default() };
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let receiver = serving.clone();
                let service = service_fn(move |request| receiver.clone().receive(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        (receiver, url)
    }

    async fn receive(self, request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
        let body = request.into_body().collect().await?.to_bytes();
        self.received.lock().unwrap().push(body);
        let status = self.statuses.lock().unwrap().pop_front().unwrap_or(200);
        let mut response = Response::new(Full::default());
        *response.status_mut() = status.try_into().unwrap();
        Ok(response)
    }

    pub(crate) fn received(&self) -> Vec<Bytes> {
        self.received.lock().unwrap().clone()
    }
}
