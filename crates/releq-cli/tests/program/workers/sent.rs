//! Images that a search sends along.

use std::fs;

use async_nats::jetstream::object_store::ObjectMetadata;
use futures_util::StreamExt;

use super::{
    Alone, SETTINGS, finished, heard, jobs, remote,
    server::{Killed, Server, installed},
    wait, worker,
};
use crate::support::write_mnist;

/// A worker does not have the images of a search. It gets them, though the server has lost one object and has another one
/// that is damaged.
#[test]
fn workers_without_the_images_get_them_whole() {
    let programs = installed("workers_without_the_images_get_them_whole");
    if programs.is_empty() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (data, away) = (root.path().join("data"), root.path().join("away"));
    write_mnist(&data, 3);
    let named = ["--data", data.to_str().unwrap()];
    let alone = Alone::with(SETTINGS, &named);
    for program in programs {
        let server = Server::start(&program);
        let of = tempfile::tempdir().unwrap();
        let run = of.path().join("run");
        let sends = ["--workers-only", "--send-data", named[0], named[1]];
        let mut life = Killed(remote(&server, &run, &sends).spawn().unwrap());
        wait("jobs", || jobs(&server).filter(|jobs| *jobs > 0));
        fs::rename(&data, &away).unwrap();
        let (runtime, jetstream) = server.client();
        runtime.block_on(async {
            let blobs = jetstream.get_object_store("RELEQ_BLOBS").await.unwrap();
            let mut list = blobs.list().await.unwrap();
            let mut objects = Vec::new();
            while let Some(object) = list.next().await {
                let object = object.unwrap();
                objects.push((object.size, object.name));
            }
            objects.sort();
            let names: Vec<String> = objects.into_iter().map(|(_, name)| name).collect();
            let [_run, weights, images] = <[String; 3]>::try_from(names).unwrap();
            blobs.delete(&weights).await.unwrap();
            let metadata = ObjectMetadata { name: images, ..ObjectMetadata::default() };
            blobs.put(metadata, &mut &b"other images"[..]).await.unwrap();
        });
        let helper = worker(&server, of.path(), "helper", &[]);
        heard(of.path(), "helper", "it is not in the store");
        heard(of.path(), "helper", "it is damaged");
        heard(of.path(), "helper", "done in");
        finished(&mut life);
        alone.assert_same(&run, "with images that were sent");
        drop(helper);

        // Without them the job is refused, and the message says what helps.
        let server = Server::start(&program);
        fs::rename(&away, &data).unwrap();
        let without = ["--workers-only", named[0], named[1]];
        let again = of.path().join("again");
        let mut life = Killed(remote(&server, &again, &without).spawn().unwrap());
        wait("jobs", || jobs(&server).filter(|jobs| *jobs > 0));
        fs::rename(&data, &away).unwrap();
        let helper = worker(&server, of.path(), "lacking", &[]);
        heard(of.path(), "lacking", "--send-data");
        fs::rename(&away, &data).unwrap();
        heard(of.path(), "lacking", "done in");
        finished(&mut life);
        alone.assert_same(&again, "with images that came later");
        drop(helper);
    }
}
