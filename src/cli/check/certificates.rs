//! The certificates of TCP ports: whether they can be used, and until when.

use jiff::Timestamp;

use super::{placed, report::Report};
use crate::{
    cli::{
        layout::{Cell, moment, relative},
        output::Tone,
    },
    config::Config,
    grpc::tls::Prepared,
};

/// A section of its own, where there are any.
pub(super) fn certificates(config: &Config, now: Timestamp, report: &mut Report) {
    let ports: Vec<_> =
        config.listen.iter().filter_map(|listen| Some((listen.place(), listen.tls()?))).collect();
    if ports.is_empty() {
        return;
    }
    report.section("Certificates");
    let heading = |text: &str| Cell::toned(text, Tone::Strong);
    report.row(["PORT", "WHAT", "NAMES", "ENDS", "FILE"].map(heading));
    for (address, tls) in ports {
        let prepared = match Prepared::read(tls) {
            Ok(prepared) => prepared,
            Err(problem) => {
                report.errors(&problem);
                continue;
            }
        };
        report.ok(format!("{address}: the certificates and the key fit each other"));
        for warning in prepared.warnings() {
            report.warning(placed(config, warning));
        }
        for certificate in prepared.facts() {
            let path = certificate.path.display().to_string();
            if let Some(complaint) = certificate.complaint(now) {
                report.warning(format!("{path}: {complaint}"));
            }
            let ends = certificate.not_after;
            let ends = ends.map(|until| format!("{} ({})", moment(until), relative(until, now)));
            report.row([
                address.clone().into(),
                certificate.role.to_string().into(),
                certificate.names.join(" ").into(),
                ends.unwrap_or_else(|| "never".to_owned()).into(),
                path.into(),
            ]);
        }
    }
}
