//! Names and tags of StatsD as names and labels of a bus.

/// A metric's name: what a bus has no place for is an underscore, as statsd_exporter has it.
pub(super) fn metric_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 1);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        out.push('_');
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    out.extend(name.chars().map(plain));
    out
}

/// A label's name. One that a format needs itself gets a prefix.
fn label_name(name: &str) -> String {
    let name = metric_name(name);
    if name.starts_with("__") || ["le", "quantile"].contains(&name.as_str()) {
        return format!("tag_{}", name.trim_start_matches('_'));
    }
    name
}

/// As many labels as a series can have.
pub(super) const LABELS_MAX: usize = 32;

/// The labels of tags, sorted by name; of a name that comes twice the last value. Once there are
/// more than a series can have, the rest is not read: hostile lines have thousands.
pub(super) fn labels(tags: &str) -> Vec<(String, String)> {
    let mut labels: Vec<(String, String)> = Vec::new();
    for tag in tags.split(',').filter(|tag| !tag.is_empty()) {
        if labels.len() > LABELS_MAX {
            break;
        }
        // One without a value says that it is so.
        let (name, value) = tag.split_once(':').unwrap_or((tag, "true"));
        if name.is_empty() {
            continue;
        }
        set(&mut labels, label_name(name), value.to_owned());
    }
    labels.sort();
    labels
}

/// Sets a label, whether it is there or not.
pub(super) fn set(labels: &mut Vec<(String, String)>, name: String, value: String) {
    match labels.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => labels.push((name, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_a_bus_has_them() {
        let found = ["page.views", "9to5", "a-b/c d", "über", "ok_name"].map(metric_name);
        assert_eq!(found, ["page_views", "_9to5", "a_b_c_d", "_ber", "ok_name"]);
    }

    #[test]
    fn tags_are_labels() {
        let pairs = |tags: &str| {
            let labels = labels(tags).into_iter();
            labels
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(pairs("b:2,a:1:2,bare,,:x"), ["a=1:2", "b=2", "bare=true"]);
        assert_eq!(pairs("a:1,a:2"), ["a=2"]);
        assert_eq!(
            pairs("le:1,quantile:2,__name__:3"),
            ["tag_le=1", "tag_name__=3", "tag_quantile=2"]
        );
        let many: String = (0..20_000).map(|at| format!("t{at}:x,")).collect();
        assert_eq!(labels(&many).len(), LABELS_MAX + 1);
    }
}
