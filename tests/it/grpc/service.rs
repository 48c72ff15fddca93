//! tonic gRPC service, written by hand to need no code generator.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::thread;

use tokio_stream::{StreamExt, iter, pending};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, BoxStream, Context, Poll, Service, http};
use tonic::metadata::{KeyRef, MetadataMap};
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::harness::hyper_client::runtime;

/// Message of every call, in both directions.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Note {
    #[prost(string, tag = "1")]
    pub(super) text: String,
    /// In a response, the user ID that the service received.
    #[prost(string, tag = "2")]
    pub(super) user: String,
    /// In a response, the names of the metadata that the service received.
    #[prost(string, repeated, tag = "3")]
    pub(super) metadata: Vec<String>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) load: Vec<u8>,
}

impl Note {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }
}

/// Starts the service on loopback.
pub(super) fn start() -> SocketAddr {
    let (sender, started) = channel();
    thread::spawn(move || {
        let runtime = runtime();
        runtime.block_on(async {
            let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            sender.send(incoming.local_addr().unwrap()).unwrap();
            let server = Server::builder().add_service(Notes);
            server.serve_with_incoming(incoming).await.unwrap();
        });
    });
    started.recv().unwrap()
}

#[derive(Clone)]
struct Notes;

impl NamedService for Notes {
    const NAME: &'static str = "claimgate.test.Notes";
}

impl Service<http::Request<Body>> for Notes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Note, Note>::default());
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            Ok(match method.as_str() {
                "Write" => grpc.unary(Method(write), request).await,
                "Read" => grpc.server_streaming(Method(read), request).await,
                "Collect" => grpc.client_streaming(Method(collect), request).await,
                _ => grpc.streaming(Method(talk), request).await,
            })
        })
    }
}

/// Method of the service.
struct Method<F>(F);

impl<F, Q, A> Service<Request<Q>> for Method<F>
where
    F: FnMut(Request<Q>) -> BoxFuture<Response<A>, Status>,
{
    type Response = Response<A>;
    type Error = Status;
    type Future = BoxFuture<Response<A>, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        (self.0)(request)
    }
}

/// Returns the note, or an error if its text is `fail`.
fn write(request: Request<Note>) -> BoxFuture<Response<Note>, Status> {
    Box::pin(async move {
        let response = response(request.metadata(), request.get_ref().clone());
        if request.get_ref().text == "fail" {
            return Err(error());
        }
        let mut response = Response::new(response);
        let written = "in the head".parse().unwrap();
        response.metadata_mut().insert("x-written", written);
        Ok(response)
    })
}

/// Returns the requested number of notes, then ends, fails or stays open.
fn read(request: Request<Note>) -> BoxFuture<Response<BoxStream<Note>>, Status> {
    Box::pin(async move {
        let note = response(request.metadata(), request.get_ref().clone());
        let (count, end) = note.text.split_once(' ').unwrap();
        let notes = iter(vec![Ok(note.clone()); count.parse().unwrap()]);
        let stream: BoxStream<Note> = match end {
            "end" => Box::pin(notes),
            "fail" => Box::pin(notes.chain(tokio_stream::once(Err(error())))),
            _ => Box::pin(notes.chain(pending())),
        };
        Ok(Response::new(stream))
    })
}

/// Returns all notes as one.
fn collect(request: Request<Streaming<Note>>) -> BoxFuture<Response<Note>, Status> {
    Box::pin(async move {
        let mut all = response(request.metadata(), Note::default());
        let mut notes = request.into_inner();
        while let Some(note) = notes.message().await? {
            all.text.push_str(&note.text);
            all.load.extend(note.load);
        }
        Ok(Response::new(all))
    })
}

/// Returns each note at once.
fn talk(request: Request<Streaming<Note>>) -> BoxFuture<Response<BoxStream<Note>>, Status> {
    Box::pin(async move {
        let metadata = request.metadata().clone();
        let notes = request.into_inner();
        let responses = notes.map(move |note| Ok(response(&metadata, note?)));
        Ok(Response::new(Box::pin(responses) as BoxStream<Note>))
    })
}

fn response(metadata: &MetadataMap, note: Note) -> Note {
    let names: Vec<String> = metadata
        .keys()
        .map(|key| match key {
            KeyRef::Ascii(key) => key.as_str().to_owned(),
            KeyRef::Binary(key) => key.as_str().to_owned(),
        })
        .collect();
    let mut users = Vec::new();
    let is_user = |name: &&String| name.replace(['_', '.'], "-") == "x-user-id";
    for name in names.iter().filter(is_user) {
        let values = metadata.get_all(name.as_str()).iter();
        users.extend(values.map(|value| value.to_str().unwrap().to_owned()));
    }
    Note {
        user: users.join(", "),
        metadata: names,
        ..note
    }
}

/// Error with a message and metadata.
fn error() -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-why", "in the end".parse().unwrap());
    Status::with_metadata(Code::FailedPrecondition, MESSAGE, metadata)
}

/// Message with characters that gRPC percent-encodes.
pub(super) const MESSAGE: &str = "žádné 100 % poznámky\nzde";
