//! Plain HTTP on a loopback socket: what is sent, what is never done, and what each failure is called.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt as _;

use super::{
    AMPLE, LOGIN, REFRESH, SHORT, a_refresh_token, credentials, is_alone, issuer_at, issuer_with,
    server::{Server, TOKEN, answer, answering, hang, request, serve},
    settings,
};
use crate::{
    clock::{Clock as _, SystemClock},
    credentials::ApiVersion::{V2, V3},
    issuer::IssueError,
    secret::ExposeSecret,
    token::Grant,
    upstream::{ProxyUrl, SetupError, issuer},
};

async fn log_in<T>(server: &Server<T>) -> Result<Grant, IssueError> {
    issuer_at(V3, &server.base_url).fetch_token(AMPLE).await
}

/// The error of a v3 login that gets these bytes for an answer.
async fn error_for(answer: impl Into<String>) -> IssueError {
    log_in(&answering(answer).await).await.unwrap_err()
}

/// The error of a v2 refresh that gets these bytes for an answer.
async fn refresh_error_for(answer: impl Into<String>) -> IssueError {
    let server = answering(answer).await;
    issuer_at(V2, &server.base_url).refresh_token(&a_refresh_token(), AMPLE).await.unwrap_err()
}

/// A listener that nobody accepts from: the kernel notes who connects.
fn bystander() -> (StdListener, String) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A port that refuses connections and that nobody else can open meanwhile.
fn closed_port() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    (socket, address)
}

fn was_left_alone(listener: &StdListener) -> bool {
    listener.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

mod a_request {
    use super::*;

    #[tokio::test]
    async fn is_one_json_api_post_with_its_length_told() {
        let server = answering(answer("200 OK", TOKEN)).await;
        let before = SystemClock.now().boot;
        let grant = log_in(&server).await.unwrap();
        assert_eq!(grant.access.secret().expose_secret(), "eyJ.a.b");
        assert!(grant.asked_at >= before && grant.asked_at <= SystemClock.now().boot);

        let request = server.script.await.unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines().map(str::to_ascii_lowercase);
        assert_eq!(lines.next().unwrap(), "post /token/ http/1.1");
        let mut headers = lines.map(|line| line.split_once(": ").unwrap().0.to_owned()).collect::<Vec<_>>();
        headers.sort();
        assert_eq!(headers, ["accept", "content-length", "content-type", "host", "user-agent"]);
        assert!(head.contains("\r\ncontent-type: application/vnd.api+json\r\n"), "{head}");
        assert!(head.contains("\r\naccept: application/vnd.api+json\r\n"), "{head}");
        assert!(head.contains(concat!(
            "\r\nuser-agent: b2binpay-broker/",
            env!("CARGO_PKG_VERSION"),
            "\r\n"
        )));
        assert!(body.contains(r#""client_id":"the-api-key""#), "{body}");
    }

    #[tokio::test]
    async fn goes_below_the_path_of_the_base_url() {
        let server = answering(answer("500 Oops", "")).await;
        let base_url = format!("{}/b2b/", server.base_url);
        let answered = issuer_at(V2, &base_url).refresh_token(&a_refresh_token(), AMPLE).await;
        assert_eq!(answered.unwrap_err().word(), "failed");
        let request = server.script.await.unwrap();
        assert!(request.starts_with("POST /b2b/token/refresh/ HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(REFRESH) && !request.contains(LOGIN), "{request}");
    }

    #[tokio::test]
    async fn has_a_connection_of_its_own_and_no_cookies() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let script = tokio::spawn(async move {
            let mut requests = Vec::new();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                requests.push(request(&mut stream).await);
                let answer = answer("200 OK\r\nSet-Cookie: a=b; Path=/", TOKEN);
                stream.write_all(answer.as_bytes()).await.unwrap();
                hang(stream).await;
            }
            requests
        });
        let issuer = issuer_at(V3, &base_url);
        for _ in 0..2 {
            issuer.fetch_token(AMPLE).await.unwrap();
        }
        let requests = script.await.unwrap();
        assert!(requests.iter().all(|request| !request.to_lowercase().contains("cookie")), "{requests:?}");
    }

    #[tokio::test]
    async fn does_not_follow_a_redirect() {
        for status in [301, 302, 303, 307, 308] {
            let (elsewhere, address) = bystander();
            let error =
                error_for(answer(&format!("{status} Go\r\nLocation: http://{address}/token/"), "")).await;
            let IssueError::Failed { status: answered, detail } = error else { panic!("{error:?}") };
            assert_eq!(answered, status);
            assert!(detail.contains(&address) && detail.contains("check upstream.base_url"), "{detail}");
            assert!(was_left_alone(&elsewhere), "{status}");
        }
    }

    #[tokio::test]
    async fn ignores_the_proxies_of_the_environment() {
        let (proxy, address) = bystander();
        let proxy_url = format!("http://{address}");
        let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
        let mut environment = names.map(|name| (name, proxy_url.as_str())).to_vec();
        environment.extend([("NO_PROXY", ""), ("no_proxy", "")]);
        if is_alone("transport::a_request::ignores_the_proxies_of_the_environment", &environment) {
            let server = answering(answer("200 OK", TOKEN)).await;
            log_in(&server).await.unwrap();
        }
        assert!(was_left_alone(&proxy));
    }

    #[test]
    fn does_not_go_through_a_proxy_in_the_clear() {
        let mut settings = settings(V3, "http://127.0.0.1:1");
        settings.proxy = Some(ProxyUrl::parse("http://proxy.example").unwrap());
        let made = issuer(settings, credentials(V3), Arc::new(SystemClock));
        assert_eq!(made.err(), Some(SetupError::PlaintextThroughProxy));
    }
}

mod a_request_that_never_left {
    use super::*;

    #[tokio::test]
    async fn because_nobody_listens_is_not_sent() {
        let (_taken, address) = closed_port();
        let error = issuer_at(V3, &format!("http://{address}")).fetch_token(AMPLE).await.unwrap_err();
        assert_eq!(error, IssueError::NotSent { detail: "connection refused".to_owned() });
    }

    #[tokio::test]
    async fn because_a_name_does_not_exist_is_not_sent() {
        let error = issuer_at(V3, "https://upstream.invalid").fetch_token(AMPLE).await.unwrap_err();
        // Nothing about the words: there are networks whose name servers know every name.
        assert_eq!(error.word(), "not_sent", "{error:?}");
    }

    #[tokio::test]
    async fn because_the_deadline_struck_in_the_handshake_is_not_sent() {
        let server = serve(hang).await;
        let base_url = server.base_url.replace("http", "https");
        let error = issuer_at(V2, &base_url).refresh_token(&a_refresh_token(), SHORT).await.unwrap_err();
        assert_eq!(error, IssueError::NotSent { detail: "timed out after 200ms".to_owned() });
    }

    #[tokio::test]
    async fn because_connecting_took_too_long_is_not_sent() {
        let server = serve(hang).await;
        let mut settings = settings(V2, &server.base_url.replace("http", "https"));
        settings.connect_timeout = SHORT;
        let error = issuer_with(settings).refresh_token(&a_refresh_token(), AMPLE).await.unwrap_err();
        assert_eq!(error, IssueError::NotSent { detail: "no connection within 200ms".to_owned() });
    }

    #[tokio::test]
    async fn because_the_handshake_was_cut_is_not_sent() {
        let server = serve(async |stream| drop(stream)).await;
        let base_url = server.base_url.replace("http", "https");
        let error = issuer_at(V3, &base_url).fetch_token(AMPLE).await.unwrap_err();
        assert_eq!(error.word(), "not_sent", "{error:?}");
    }

    #[tokio::test]
    async fn because_the_proxy_refused_is_not_sent() {
        for (refusal, why) in [
            ("407 Proxy Authentication Required", "through the proxy: proxy authorization required"),
            ("403 Forbidden", "through the proxy: unsuccessful"),
        ] {
            let proxy = answering(answer(refusal, "")).await;
            let mut settings = settings(V2, "https://upstream.example/below");
            settings.proxy = Some(ProxyUrl::parse(&proxy.base_url).unwrap());
            let error = issuer_with(settings).refresh_token(&a_refresh_token(), AMPLE).await.unwrap_err();
            assert_eq!(error, IssueError::NotSent { detail: why.to_owned() });
            let request = proxy.script.await.unwrap();
            assert!(request.starts_with("CONNECT upstream.example:443 "), "{request}");
            assert!(!request.contains(REFRESH), "{request}");
        }
    }

    #[tokio::test]
    async fn because_there_is_no_proxy_is_not_sent() {
        let (_taken, address) = closed_port();
        let mut settings = settings(V3, "https://upstream.example");
        settings.proxy = Some(ProxyUrl::parse(&format!("http://{address}")).unwrap());
        let error = issuer_with(settings).fetch_token(AMPLE).await.unwrap_err();
        assert_eq!(error, IssueError::NotSent { detail: "through the proxy: connection refused".to_owned() });
    }
}

mod a_request_that_left {
    use super::*;

    fn lost(detail: &str) -> IssueError {
        IssueError::AnswerLost { detail: detail.to_owned() }
    }

    #[tokio::test]
    async fn and_was_never_answered_is_lost_when_its_time_is_over() {
        let server = serve(hang).await;
        let before = SystemClock.now().boot;
        let error =
            issuer_at(V2, &server.base_url).refresh_token(&a_refresh_token(), SHORT).await.unwrap_err();
        let took = SystemClock.now().boot.saturating_since(before);
        assert_eq!(error, lost("timed out after 200ms"));
        assert!(took >= SHORT && took < AMPLE / 2, "{took:?}");
    }

    #[tokio::test]
    async fn never_lasts_longer_than_the_settings_allow() {
        let server = serve(hang).await;
        let mut settings = settings(V3, &server.base_url);
        settings.request_timeout = SHORT;
        let error = issuer_with(settings).fetch_token(AMPLE).await.unwrap_err();
        assert_eq!(error, lost("timed out after 200ms"));
    }

    #[tokio::test]
    async fn and_met_a_closed_connection_is_lost() {
        let server = serve(async |mut stream| drop(request(&mut stream).await)).await;
        let error = log_in(&server).await.unwrap_err();
        assert_eq!(error, lost("connection closed before message completed"));
    }

    #[tokio::test]
    async fn and_met_a_reset_is_lost() {
        let server = serve(async |mut stream| {
            request(&mut stream).await;
            // Who closes without lingering resets.
            stream.set_zero_linger().unwrap();
        })
        .await;
        let error = log_in(&server).await.unwrap_err();
        assert_eq!(error, lost("connection reset by peer"));
    }

    #[tokio::test]
    async fn and_got_no_http_is_lost() {
        for garbage in ["SSH-2.0-OpenSSH_9.2\r\n", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "HTTP/1.1 abc\r\n\r\n"]
        {
            let error = error_for(garbage).await;
            assert_eq!(error.word(), "answer_lost", "{garbage:?}: {error:?}");
        }
    }

    #[tokio::test]
    async fn and_got_half_a_success_is_lost() {
        let half = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", TOKEN.len(), &TOKEN[..40]);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"dat";
        for answer in [&half, chunked, "HTTP/1.1 200 OK\r\nContent-Le"] {
            assert_eq!(error_for(answer).await.word(), "answer_lost", "{answer}");
        }
    }

    #[tokio::test]
    async fn and_got_a_success_drop_by_drop_is_lost_when_its_time_is_over() {
        let server = serve(async |mut stream| {
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
            // Each drop is in time for a timeout that starts anew with each.
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        })
        .await;
        let error = issuer_at(V3, &server.base_url).fetch_token(SHORT).await.unwrap_err();
        assert_eq!(error, lost("it broke off: timed out after 200ms"));
    }
}

mod an_answer {
    use super::*;

    #[tokio::test]
    async fn ends_where_its_connection_does_if_it_has_no_length() {
        for version in ["1.0", "1.1"] {
            let server = answering(format!("HTTP/{version} 200 OK\r\n\r\n{TOKEN}")).await;
            assert_eq!(log_in(&server).await.unwrap().lifetime, Duration::from_secs(3599));
        }
    }

    #[tokio::test]
    async fn may_come_in_chunks_and_after_an_interim_one() {
        let (start, end) = TOKEN.split_at(30);
        let server = answering(format!(
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n{start}\r\n{:x}\r\n{end}\r\n0\r\n\r\n",
            end.len()
        ))
        .await;
        assert!(log_in(&server).await.is_ok());
    }

    #[tokio::test]
    async fn that_says_it_is_huge_is_not_waited_for() {
        let server = serve(async |mut stream| {
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n").await.unwrap();
            hang(stream).await;
        })
        .await;
        let error = log_in(&server).await.unwrap_err();
        assert_eq!(error, IssueError::Unusable { detail: "it is longer than 65536 bytes".to_owned() });
    }

    #[tokio::test]
    async fn that_does_not_end_is_not_read_to_its_end() {
        let server = serve(async |mut stream| {
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(&[b' '; 4096]).await.is_ok() {}
        })
        .await;
        assert_eq!(log_in(&server).await.unwrap_err().word(), "unusable");
        server.script.await.unwrap();
    }

    #[tokio::test]
    async fn of_just_the_size_that_is_read_is_read() {
        let padded = format!("{TOKEN}{}", " ".repeat(64 * 1024 - TOKEN.len()));
        assert!(log_in(&answering(answer("200 OK", &padded)).await).await.is_ok());
        let error = error_for(format!("HTTP/1.1 200 OK\r\n\r\n{padded} ")).await;
        assert_eq!(error.word(), "unusable");
    }

    #[tokio::test]
    async fn that_is_no_token_is_unusable() {
        for body in ["", "<html>hello</html>", "OK", "{}", "[]"] {
            assert_eq!(error_for(answer("200 OK", body)).await.word(), "unusable", "{body}");
        }
        assert_eq!(error_for("HTTP/1.1 204 No Content\r\n\r\n").await.word(), "unusable");
    }

    #[tokio::test]
    async fn that_is_compressed_is_unusable_and_not_inflated() {
        let error = error_for("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f").await;
        assert_eq!(error.word(), "unusable");
    }

    #[tokio::test]
    async fn of_which_the_status_came_says_that_much_whatever_became_of_its_body() {
        let broken = |status| format!("HTTP/1.1 {status}\r\nContent-Length: 1000\r\n\r\n{{");
        assert_eq!(refresh_error_for(broken("401 Unauthorized")).await.word(), "refresh_token_rejected");
        assert_eq!(refresh_error_for(broken("502 Bad Gateway")).await.word(), "failed");
        assert_eq!(error_for(broken("400 Bad Request")).await.word(), "credentials_rejected");

        let server = serve(async move |mut stream| {
            request(&mut stream).await;
            stream.write_all(broken("429 Too Many\r\nRetry-After: 7").as_bytes()).await.unwrap();
            hang(stream).await;
        })
        .await;
        let error = issuer_at(V3, &server.base_url).fetch_token(SHORT).await.unwrap_err();
        assert_eq!(error, IssueError::Throttled { retry_after: Some(Duration::from_secs(7)) });
    }

    #[tokio::test]
    async fn that_throttles_says_for_how_long_by_its_own_clock() {
        let dates = "Date: Sun, 06 Nov 1994 08:49:30 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT";
        let error = error_for(answer(&format!("429 Too Many\r\n{dates}"), "")).await;
        assert_eq!(error, IssueError::Throttled { retry_after: Some(Duration::from_secs(7)) });
    }
}
