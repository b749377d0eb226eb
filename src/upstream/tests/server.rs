//! A server that speaks no HTTP of its own: each test says what it does with the bytes.

use std::future::Future;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// An answer of v3 with a token.
pub(super) const TOKEN: &str = r#"{"data":{"type":"auth-token","id":"0","attributes":{"access":"eyJ.a.b","expires_in":3599,"token_type":"Bearer"}}}"#;

/// A server that plays a script once and then closes. What the script returns can be awaited.
pub(super) struct Server<T> {
    pub(super) base_url: String,
    pub(super) script: JoinHandle<T>,
}

/// Plays the script with whoever connects first.
pub(super) async fn serve<F, S>(script: S) -> Server<F::Output>
where
    S: FnOnce(TcpStream) -> F + Send + 'static,
    F: Future<Output: Send + 'static> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let script = tokio::spawn(async move { script(listener.accept().await.unwrap().0).await });
    Server { base_url, script }
}

/// Answers the first request with these bytes and closes. Gives the request.
pub(super) async fn answering(answer: impl Into<String>) -> Server<String> {
    let answer = answer.into();
    serve(async move |mut stream| {
        let request = request(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        request
    })
    .await
}

/// An answer with a body, its length told.
pub(super) fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Reads one whole request.
pub(super) async fn request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            if body.len() >= length.parse().unwrap() {
                return text.into_owned();
            }
        }
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap();
        assert_ne!(count, 0, "the request broke off: {text}");
        bytes.extend_from_slice(&chunk[..count]);
    }
}

/// Says nothing more, and waits until the other end has closed.
pub(super) async fn hang(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}
