//! Quantities as Kubernetes writes them (`100m`, `1.5Gi`, `2e3`).
//!
//! Owns their value in thousandths. What cannot be read counts as not written: the API server lets none through.

use cluster_plan::input::Requests;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use std::collections::BTreeMap;

/// Resources by name.
pub(super) type Resources = BTreeMap<String, Quantity>;

/// Thousandths, rounded down; what is too large is the largest there is.
pub(super) fn milli(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor = factor(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{}{fraction}", whole.trim_start_matches('+')).parse().ok()?;
    let decimals = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let value = digits.saturating_mul(factor.0) / decimals.saturating_mul(factor.1).max(1);
    Some(u64::try_from(value).unwrap_or(u64::MAX))
}

/// Whole units, rounded down.
pub(super) fn units(quantity: &Quantity) -> Option<u64> {
    milli(quantity).map(|milli| milli / 1_000)
}

/// Thousandths in one, as a fraction.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1_000 << (10 * power), 1));
    let decimal = |power: u32| Some((10_u128.pow(power), 1));
    match suffix {
        "" => decimal(3),
        "n" => Some((1, 1_000_000)),
        "u" => Some((1, 1_000)),
        "m" => decimal(0),
        "k" => decimal(6),
        "M" => decimal(9),
        "G" => decimal(12),
        "T" => decimal(15),
        "P" => decimal(18),
        "E" => decimal(21),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { Some((1_000, power)) } else { Some((power.checked_mul(1_000)?, 1)) }
        }
    }
}

/// What is asked for. Resources of Kubernetes' own beside cpu and memory are not looked at.
pub(super) fn requests(resources: &Resources) -> Requests {
    Requests {
        cpu_milli: resources.get("cpu").and_then(milli).unwrap_or_default(),
        memory: resources.get("memory").and_then(units).unwrap_or_default(),
        extended: extended(resources),
    }
}

/// Extended resources: those with a domain that is not Kubernetes' own.
pub(super) fn extended(resources: &Resources) -> BTreeMap<String, u64> {
    let is_extended = |name: &str| {
        name.split_once('/').is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
    };
    let whole = resources.iter().filter(|(name, _)| is_extended(name));
    whole.filter_map(|(name, quantity)| Some((name.clone(), units(quantity)?))).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1", Some(1_000))]
    #[case("100m", Some(100))]
    #[case("0.1", Some(100))]
    #[case("1.5", Some(1_500))]
    #[case("+2", Some(2_000))]
    #[case("999999n", Some(0))]
    #[case("1500u", Some(1))]
    #[case("2k", Some(2_000_000))]
    #[case("1Ki", Some(1_024_000))]
    #[case("1.5Gi", Some(1_610_612_736_000))]
    #[case("2e3", Some(2_000_000))]
    #[case("2E-1", Some(200))]
    #[case("9P", Some(9_000_000_000_000_000_000))]
    #[case("9E", Some(u64::MAX))]
    #[case("99999999999999999999E", Some(u64::MAX))]
    #[case("-1", None)]
    #[case("", None)]
    #[case("many", None)]
    #[case("1Zi", None)]
    #[case("1e999", None)]
    fn a_quantity_is_read(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(milli(&Quantity(text.to_owned())), expected);
    }

    #[test]
    fn only_names_with_a_foreign_domain_are_extended() {
        let names = ["cpu", "hugepages-2Mi", "nvidia.com/gpu", "kubernetes.io/batch", "x.kubernetes.io/y"];
        let resources: Resources = names.map(|name| (name.to_owned(), Quantity("2".to_owned()))).into();
        assert_eq!(extended(&resources), [("nvidia.com/gpu".to_owned(), 2)].into());
        assert_eq!(requests(&resources).cpu_milli, 2_000);
    }
}
