//! Callbacks, from the order to the service.

use std::time::Duration;

use b2binpay_simulator::{
    Attempt, CallbackForm, CallbackSpec, Credentials, DeliveryError, DeliveryPlan, Generation, Settings,
};
use serde_json::Value;

use crate::receiver::Receiver;
use crate::support::{noon, simulator_at, start};

fn quick(tries: u32) -> DeliveryPlan {
    DeliveryPlan { tries, pause: Duration::from_millis(1), ..DeliveryPlan::default() }
}

#[tokio::test]
async fn a_callback_is_sent_again_until_the_answer_is_200() {
    let simulator = start().await;
    let (receiver, url) = Receiver::start([500, 204, 200]).await;
    let delivery = simulator.send_callback_by(&url, &CallbackSpec::default(), &quick(9)).await.unwrap();
    assert!(delivery.delivered);
    assert_eq!(delivery.attempts, [Attempt::Status(500), Attempt::Status(204), Attempt::Status(200)]);
    let bodies = receiver.received();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.iter().all(|body| *body == bodies[0]), "the very same body, its time included");
}

#[tokio::test]
async fn a_service_that_never_answers_200_is_left_in_peace_in_the_end() {
    let simulator = start().await;
    let (receiver, url) = Receiver::start([500; 10]).await;
    let delivery = simulator.send_callback_by(&url, &CallbackSpec::default(), &quick(3)).await.unwrap();
    assert_eq!((delivery.delivered, receiver.received().len()), (false, 3));
}

#[tokio::test]
async fn a_delivered_callback_can_come_more_often() {
    let simulator = start().await;
    let (receiver, url) = Receiver::start([]).await;
    let plan = DeliveryPlan { duplicates: 2, ..quick(1) };
    simulator.send_callback_by(&url, &CallbackSpec::default(), &plan).await.unwrap();
    assert_eq!(receiver.received().len(), 3);
}

#[tokio::test]
async fn a_service_that_is_down_is_said_to_be() {
    let simulator = start().await;
    let gone = simulator.base_url();
    simulator.pause_listening().await;
    let delivery = simulator.send_callback_by(&gone, &CallbackSpec::default(), &quick(1)).await.unwrap();
    assert!(matches!(&delivery.attempts[..], [Attempt::Failed(reason)] if reason.contains("connection")));
}

#[tokio::test]
async fn only_loopback_is_posted_to_unless_allowed() {
    let simulator = start().await;
    let refused = simulator.send_callback("http://192.0.2.1/hook", &CallbackSpec::default()).await;
    let Err(error @ DeliveryError::Url { .. }) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("callbacks_anywhere"), "{error}");
}

#[tokio::test]
async fn callbacks_are_signed_with_the_keys_in_force() {
    let simulator = simulator_at(&noon(), Settings::default()).await;
    let sign = |api| {
        let body = simulator.callback(&CallbackSpec { api, ..CallbackSpec::default() });
        serde_json::from_slice::<Value>(&body).unwrap()["meta"]["sign"].clone()
    };
    let (v2, v3) = (sign(Generation::V2), sign(Generation::V3));
    assert_ne!(v2, v3);
    simulator.set(|settings| settings.credentials = Credentials::new("other", "other"));
    assert_ne!(sign(Generation::V2), v2);
    assert_eq!(sign(Generation::V3), v3);
    simulator.set(|settings| settings.callback_secret = "other".to_owned());
    assert_ne!(sign(Generation::V3), v3);
}

#[tokio::test]
async fn a_callback_has_the_shape_of_a_real_one() {
    let simulator = simulator_at(&noon(), Settings::default()).await;
    let spec =
        CallbackSpec { form: CallbackForm::AmountChanged("9".into()), status: -2, ..Default::default() };
    let body: Value = serde_json::from_slice(&simulator.callback(&spec)).unwrap();
    assert_eq!(body["data"]["type"], "deposit");
    assert_eq!(body["data"]["attributes"]["tracking_id"], "order-77");
    assert_eq!(body["meta"]["time"], "2020-12-29T12:00:00.123456Z");
    let [currency, transfer] = &body["included"].as_array().unwrap()[..] else { panic!("{body}") };
    assert_eq!((&currency["type"], &currency["attributes"]["exp"]), (&"currency".into(), &18.into()));
    assert_eq!(transfer["attributes"]["status"], -2);
    assert_eq!(transfer["attributes"]["amount"], "9");
    assert_eq!(transfer["relationships"]["currency"]["data"]["id"], currency["id"]);
}
