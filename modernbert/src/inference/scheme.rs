//! Schemes of tags: the rules by which neighboring tags form a span.

/// Neighboring tags that form a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagSpan<'l> {
    /// Kind of the span: the tag without its prefix.
    pub kind: &'l str,
    /// Position of its first tag.
    pub first: usize,
    /// Position of its last tag.
    pub last: usize,
}

/// Position of a token in its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpanPosition {
    /// Begins a span: `B`, in front of more tokens.
    Begin,
    /// Is inside of one: `I` or `M`; begins one where none of its kind is open.
    Inside,
    /// Ends one: `E` or `L`.
    End,
    /// Is one by itself: `S` or `U`.
    Single,
}

/// The scheme of a set of tags.
///
/// `B-` and `I-` always are prefixes. `E-`, `L-`, `M-`, `S-` and `U-` are prefixes where some tag has the prefix `B-`, as in the
/// schemes IOBES and BILOU; elsewhere they are part of a name such as `S-BAR`. Tags without a prefix are kinds of their own, of
/// which neighbors make up one span. Only `O` by itself is outside: `B-O` begins a span of the kind `O`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagScheme {
    /// True if `E`, `L`, `M`, `S` and `U` are prefixes.
    ends: bool,
    /// True if some tag ends spans, so that a span without an end is ill-formed: IOBES or BILOU.
    has_ends: bool,
}

impl TagScheme {
    /// The scheme of these tags.
    pub fn of<S: AsRef<str>>(tags: &[S]) -> Self {
        let starts = |prefixes: &[&str]| {
            let tags = tags.iter().map(AsRef::as_ref);
            tags.into_iter().any(|tag: &str| {
                prefixes.iter().any(|prefix| {
                    tag.strip_prefix(prefix)
                        .is_some_and(|kind| !kind.is_empty())
                })
            })
        };
        let ends = starts(&["B-"]);
        Self {
            ends,
            has_ends: ends && starts(&["E-", "L-", "S-", "U-"]),
        }
    }

    /// Part and kind of a tag; `None` outside of all spans.
    fn read<'l>(&self, tag: &'l str) -> Option<(SpanPosition, &'l str)> {
        if tag == "O" {
            return None;
        }
        let prefix = tag.split_once('-').filter(|(_, kind)| !kind.is_empty());
        let part = match prefix {
            Some(("B", _)) => Some(SpanPosition::Begin),
            Some(("I", _)) => Some(SpanPosition::Inside),
            Some(("M", _)) if self.ends => Some(SpanPosition::Inside),
            Some(("E" | "L", _)) if self.ends => Some(SpanPosition::End),
            Some(("S" | "U", _)) if self.ends => Some(SpanPosition::Single),
            _ => None,
        };
        match (part, prefix) {
            (Some(part), Some((_, kind))) => Some((part, kind)),
            _ => Some((SpanPosition::Inside, tag)),
        }
    }

    /// The spans that the tags of one sentence make up, in order. Ill-formed sequences are read as CoNLL's script and seqeval's default
    /// mode read them: a span also begins at an `I` or `E` whose kind is not open.
    pub fn spans<'l>(&self, tags: impl IntoIterator<Item = &'l str>) -> Vec<TagSpan<'l>> {
        let mut spans: Vec<TagSpan<'l>> = Vec::new();
        let mut open = false;
        for (at, tag) in tags.into_iter().enumerate() {
            let Some((part, kind)) = self.read(tag) else {
                open = false;
                continue;
            };
            let goes_on = open && matches!(part, SpanPosition::Inside | SpanPosition::End);
            match spans.last_mut() {
                Some(span) if goes_on && span.kind == kind => span.last = at,
                _ => spans.push(TagSpan {
                    kind,
                    first: at,
                    last: at,
                }),
            }
            open = matches!(part, SpanPosition::Begin | SpanPosition::Inside);
        }
        spans
    }

    /// The well-formed spans alone, as seqeval's strict mode with the schemes IOB2, IOBES and BILOU: a span begins with `B`, continues
    /// with tags of its kind, and where the scheme has ends also ends with one, or is a single `S` or `U`.
    pub fn strict_spans<'l>(&self, tags: impl IntoIterator<Item = &'l str>) -> Vec<TagSpan<'l>> {
        let mut spans: Vec<TagSpan<'l>> = Vec::new();
        let mut open: Option<TagSpan<'l>> = None;
        for (at, tag) in tags.into_iter().enumerate() {
            let read = self.read(tag);
            let continued = match (open.take(), read) {
                (Some(span), Some((SpanPosition::Inside | SpanPosition::End, kind)))
                    if span.kind == kind =>
                {
                    Some(TagSpan { last: at, ..span })
                }
                (before, _) => {
                    // Without ends in the scheme a span ends where no tag of its kind follows.
                    spans.extend(before.filter(|_| !self.has_ends));
                    None
                }
            };
            let single = |kind| TagSpan {
                kind,
                first: at,
                last: at,
            };
            match (continued, read) {
                (Some(span), Some((SpanPosition::End, _))) => spans.push(span),
                (Some(span), _) => open = Some(span),
                (None, Some((SpanPosition::Begin, kind))) => open = Some(single(kind)),
                (None, Some((SpanPosition::Single, kind))) => spans.push(single(kind)),
                (None, _) => {}
            }
        }
        spans.extend(open.filter(|_| !self.has_ends));
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(spans: &[TagSpan<'_>]) -> Vec<String> {
        let shown = spans.iter();
        shown
            .map(|span| format!("{} {}..={}", span.kind, span.first, span.last))
            .collect()
    }

    #[test]
    fn strict_spans_begin_and_end_by_their_scheme() {
        let iob = TagScheme::of(&["O", "B-X", "I-X", "I-Y"]);
        let tags = ["I-X", "B-X", "I-X", "I-Y", "B-X", "O", "B-X"];
        assert_eq!(
            described(&iob.strict_spans(tags)),
            ["X 1..=2", "X 4..=4", "X 6..=6"]
        );
        let iobes = TagScheme::of(&["O", "B-X", "I-X", "E-X", "S-X"]);
        let tags = [
            "B-X", "I-X", "E-X", "E-X", "S-X", "B-X", "O", "I-X", "B-X", "E-X",
        ];
        assert_eq!(
            described(&iobes.strict_spans(tags)),
            ["X 0..=2", "X 4..=4", "X 8..=9"]
        );
        assert_eq!(
            described(&iobes.spans(tags)),
            [
                "X 0..=2", "X 3..=3", "X 4..=4", "X 5..=5", "X 7..=7", "X 8..=9"
            ]
        );
    }
}
