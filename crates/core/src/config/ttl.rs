//! The option `ttl`: a time to live in whole seconds.
//!
//! Accepted, case-insensitive:
//! - whole seconds: `300`;
//! - an interval in PostgreSQL's style: `<number> <unit>` any number of times, and a time `hh:mm` or
//!   `hh:mm:ss` at most once, which stands last: `5 minutes`, `1.5 hours`, `1 day 02:00:00`. A number may have
//!   a fraction; the space before the unit may be missing. Units are week, day, hour, minute, second and
//!   millisecond, in the singular, the plural and PostgreSQL's abbreviations.
//!
//! Refused: months, years and longer, whose length depends on the date; minus signs and `ago`; ISO 8601
//! (`PT5M`); a total that is not above 0, not whole in seconds, or longer than [`MAX_SECONDS`].

use std::fmt;
use std::num::NonZeroU32;

/// The longest time to live, in seconds: 68 years. Redis counts in milliseconds since 1970 in 64 bits and
/// refuses what overflows there; this stays far below.
pub(super) const MAX_SECONDS: u32 = i32::MAX as u32;

/// Why a text is no time to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TtlProblem {
    /// Nothing there.
    Empty,
    /// 0 or below.
    NotPositive,
    /// A fraction of a second is left.
    NotWholeSeconds,
    /// Above the limit, in seconds.
    TooLong {
        /// The limit in seconds.
        limit: u32,
    },
    /// A month, a year or longer.
    NoFixedLength {
        /// The unit as written.
        unit: String,
    },
    /// A unit that is none.
    UnknownUnit {
        /// The unit as written.
        unit: String,
    },
    /// Something that is neither number, unit nor time.
    Syntax,
}

impl fmt::Display for TtlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TtlProblem::Empty => f.write_str("it is empty"),
            TtlProblem::NotPositive => f.write_str("it is not above 0"),
            TtlProblem::NotWholeSeconds => f.write_str("it is not a whole number of seconds"),
            TtlProblem::TooLong { limit } => write!(f, "it is longer than {limit} seconds"),
            TtlProblem::NoFixedLength { unit } => write!(f, "the length of a {unit} depends on the date"),
            TtlProblem::UnknownUnit { unit } => write!(f, "{unit} is no unit of time"),
            TtlProblem::Syntax => f.write_str("it is not an interval"),
        }
    }
}

const NANOS: u128 = 1_000_000_000;

/// Reads a time to live; seconds.
pub(super) fn parse(text: &str) -> Result<NonZeroU32, TtlProblem> {
    let text = text.trim().to_ascii_lowercase();
    if text.is_empty() {
        return Err(TtlProblem::Empty);
    }
    let nanos = match text.strip_prefix('-') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => return Err(TtlProblem::NotPositive),
        _ => total_nanos(&text)?,
    };
    if nanos == 0 {
        return Err(TtlProblem::NotPositive);
    }
    if nanos % NANOS != 0 {
        return Err(TtlProblem::NotWholeSeconds);
    }
    let too_long = TtlProblem::TooLong { limit: MAX_SECONDS };
    let seconds = u32::try_from(nanos / NANOS)
        .ok()
        .filter(|s| *s <= MAX_SECONDS)
        .ok_or(too_long)?;
    NonZeroU32::new(seconds).ok_or(TtlProblem::NotPositive)
}

/// Adds up the parts of an interval text.
fn total_nanos(text: &str) -> Result<u128, TtlProblem> {
    let mut total = 0_u128;
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        if number.contains(':') {
            if !after.is_empty() {
                return Err(TtlProblem::Syntax);
            }
            return Ok(total.saturating_add(clock_nanos(number)?));
        }
        let after = after.trim_start();
        let unit_end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let number = decimal_nanos(number)?;
        let unit_nanos = match unit {
            "" if first && next.is_empty() => NANOS,
            "" => return Err(TtlProblem::Syntax),
            unit => unit_length(unit)?,
        };
        let part = number.saturating_mul(unit_nanos);
        if part % NANOS != 0 {
            return Err(TtlProblem::NotWholeSeconds);
        }
        total = total.saturating_add(part / NANOS);
        rest = next.trim_start();
        first = false;
    }
    Ok(total)
}

/// `12.5` in billionths. Nine digits after the point are the most that can matter.
fn decimal_nanos(number: &str) -> Result<u128, TtlProblem> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return Err(TtlProblem::Syntax);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err(TtlProblem::NotWholeSeconds);
    }
    let whole = whole.trim_start_matches('0');
    if whole.len() > 12 {
        return Err(TtlProblem::TooLong { limit: MAX_SECONDS });
    }
    let nanos = format!("{whole}{fraction:0<9}")
        .parse()
        .map_err(|_| TtlProblem::Syntax)?;
    Ok(nanos)
}

/// `hh:mm` or `hh:mm:ss[.fraction]`.
fn clock_nanos(clock: &str) -> Result<u128, TtlProblem> {
    let parts: Vec<&str> = clock.split(':').collect();
    let (hours, minutes, seconds) = match parts.as_slice() {
        [hours, minutes] => (*hours, *minutes, "0"),
        [hours, minutes, seconds] => (*hours, *minutes, *seconds),
        _ => return Err(TtlProblem::Syntax),
    };
    if hours.contains('.') || minutes.contains('.') {
        return Err(TtlProblem::Syntax);
    }
    let (minutes, seconds) = (decimal_nanos(minutes)?, decimal_nanos(seconds)?);
    if minutes >= 60 * NANOS || seconds >= 60 * NANOS {
        return Err(TtlProblem::Syntax);
    }
    Ok(decimal_nanos(hours)? * 3600 + minutes * 60 + seconds)
}

/// The length of a unit in nanoseconds; the abbreviations are those of PostgreSQL's `deltatktbl`.
fn unit_length(unit: &str) -> Result<u128, TtlProblem> {
    let seconds = match unit {
        "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" => {
            return Ok(NANOS / 1000);
        }
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 604_800,
        "mon" | "mons" | "month" | "months" | "y" | "yr" | "yrs" | "year" | "years" | "decade"
        | "decades" | "century" | "centuries" | "millennium" | "millennia" => {
            return Err(TtlProblem::NoFixedLength {
                unit: unit.to_owned(),
            });
        }
        _ => {
            return Err(TtlProblem::UnknownUnit {
                unit: unit.chars().take(20).collect(),
            });
        }
    };
    Ok(seconds * NANOS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> u32 {
        parse(text)
            .unwrap_or_else(|problem| panic!("{text}: {problem}"))
            .get()
    }

    #[test]
    fn seconds_and_intervals_are_read() {
        for (text, expected) in [
            ("300", 300),
            (" 300 ", 300),
            ("300.0", 300),
            ("5 minutes", 300),
            ("5minutes", 300),
            ("5 MIN", 300),
            ("1 day 02:00:00", 93_600),
            ("02:30", 9000),
            ("00:00:01", 1),
            ("1.5 hours", 5400),
            (".5 minutes", 30),
            ("1 week 1 d 1 h 1 m 1 s", 604_800 + 86_400 + 3600 + 60 + 1),
            ("1h30m", 5400),
            ("500 ms 0.5 s", 1),
            ("100:00:00", 360_000),
            ("2147483647", MAX_SECONDS),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn each_refusal_says_why() {
        let limit = MAX_SECONDS;
        let no_length = |unit: &str| TtlProblem::NoFixedLength { unit: unit.into() };
        for (text, problem) in [
            ("", TtlProblem::Empty),
            ("  ", TtlProblem::Empty),
            ("0", TtlProblem::NotPositive),
            ("00:00:00", TtlProblem::NotPositive),
            ("-5", TtlProblem::NotPositive),
            ("-5 minutes", TtlProblem::NotPositive),
            ("1.5", TtlProblem::NotWholeSeconds),
            ("100 ms", TtlProblem::NotWholeSeconds),
            ("0.0000000001", TtlProblem::NotWholeSeconds),
            ("2147483648", TtlProblem::TooLong { limit }),
            ("99999999999999999999999", TtlProblem::TooLong { limit }),
            ("999999999999 weeks", TtlProblem::TooLong { limit }),
            ("1 month", no_length("month")),
            ("2 years", no_length("years")),
            (
                "5 apples",
                TtlProblem::UnknownUnit {
                    unit: "apples".into(),
                },
            ),
            ("5 minutes ago", TtlProblem::Syntax),
            ("PT5M", TtlProblem::Syntax),
            ("5 minutes 3", TtlProblem::Syntax),
            ("minutes", TtlProblem::Syntax),
            ("1:2:3:4", TtlProblem::Syntax),
            ("00:99", TtlProblem::Syntax),
            ("02:00 5 minutes", TtlProblem::Syntax),
            ("1.2.3 s", TtlProblem::Syntax),
            (".", TtlProblem::Syntax),
            ("-", TtlProblem::Syntax),
            ("é", TtlProblem::Syntax),
        ] {
            assert_eq!(parse(text), Err(problem), "{text}");
        }
    }
}
