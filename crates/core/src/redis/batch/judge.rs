//! What the answers to a batch make of its plan.

use ::redis::Value;

use super::super::chunk::Action;
use super::super::event::LossReason;
use super::super::fault::Cause;
use super::super::reply::Verdict;
use super::{Answers, Batch, Loss, Outcome, Planned, Redirect, Redirected, Way};

impl Batch {
    /// Looks at the answers of one master. Returns why its connection is of no use, if they say so.
    pub fn read_answers(&mut self, part: usize, replies: &[Value]) -> Option<Cause> {
        self.note_answers(part, replies);
        replies.iter().find_map(|reply| match reply {
            Value::ServerError(error) => match Verdict::of(error) {
                Verdict::Fatal(cause) => Some(cause),
                _ => None,
            },
            _ => None,
        })
    }

    /// Takes the answers to each part, and plans what follows from them. What is to be sent after a loss is at
    /// most `most` operations at a time.
    pub fn judge(&mut self, answers: &[Answers], most: usize, redirect: Redirect<'_>) -> Outcome {
        let sent = || {
            self.parts
                .iter()
                .zip(answers)
                .filter(|(part, _)| !part.steps.is_empty())
        };
        if sent().all(|(_, answer)| answer.is_none()) {
            self.plan_again(most);
            return Outcome::Through;
        }
        let is_error = |reply: &Value| matches!(reply, Value::ServerError(_));
        if sent().all(|(_, answer)| {
            answer
                .as_ref()
                .is_some_and(|replies| !replies.iter().any(is_error))
        }) {
            self.plan.drain(..self.encoded);
            forget_asked(&mut self.plan);
            self.encode(usize::MAX);
            return Outcome::Through;
        }
        let fates = self.fates(answers, redirect);
        let last = self.last_of_each_key(&self.plan);
        let mut rest = self.plan.split_off(self.encoded);
        forget_asked(&mut rest);
        let sent = std::mem::take(&mut self.plan);
        let (mut wait, mut redirected, mut lost) = (None, false, false);
        for ((planned, (at, fate)), is_last) in sent.into_iter().zip(fates).zip(last) {
            let again = match fate {
                Fate::Lost => {
                    lost = true;
                    is_last.then(|| (self.way_over_another_line(planned), None))
                }
                Fate::Redirected(asked) => {
                    redirected = true;
                    is_last.then_some((planned.way, asked))
                }
                Fate::Judged(verdict) => {
                    self.count_error(planned.item, at, &verdict, &mut wait);
                    self.follow_up(planned, at, verdict, is_last)
                        .map(|way| (way, planned.asked))
                }
            };
            if let Some((way, asked)) = again {
                let item = planned.item;
                self.plan.push(Planned { item, way, asked });
            }
        }
        self.plan.extend(rest);
        if lost || wait.is_some() {
            forget_asked(&mut self.plan);
        }
        self.encode(if lost { most } else { usize::MAX });
        match wait {
            Some((at, cause)) => Outcome::Wait(at, cause),
            None if redirected => Outcome::Redirected,
            None => Outcome::Through,
        }
    }

    fn count_error(&mut self, item: u32, at: usize, verdict: &Verdict, wait: &mut Option<(usize, Cause)>) {
        match verdict {
            Verdict::Done => return,
            Verdict::Later(cause) => {
                *wait = Some((at, cause.clone()));
                return;
            }
            Verdict::NoMemory(cause) => self.full = Some((at, cause.clone())),
            _ => {}
        }
        *self.errors.entry(item).or_default() += 1;
    }

    /// What became of each operation that was encoded, and the number of the master that it was sent to.
    fn fates(&self, answers: &[Answers], redirect: Redirect<'_>) -> Vec<(usize, Fate)> {
        let mut fates = vec![(0, Fate::Judged(Verdict::Done)); self.encoded];
        for (by, (part, answer)) in self.parts.iter().zip(answers).enumerate() {
            for step in &part.steps {
                let range = step.first as usize..(step.first + step.count) as usize;
                fates[range].iter_mut().for_each(|(at, _)| *at = by);
            }
            let Some(replies) = answer else {
                for step in &part.steps {
                    fates[step.first as usize..(step.first + step.count) as usize].fill((by, Fate::Lost));
                }
                continue;
            };
            for (step, reply) in part.steps.iter().zip(replies) {
                let Value::ServerError(error) = reply else {
                    continue;
                };
                let range = step.first as usize..(step.first + step.count) as usize;
                match (Verdict::of(error), &self.table) {
                    (Verdict::Redirected { is_ask, to }, Some(table)) => {
                        let asked = redirect(Redirected {
                            by,
                            is_ask,
                            to: &to,
                            numbering: table.numbering(),
                        });
                        fates[range].iter_mut().for_each(|(_, fate)| fate.redirect(asked));
                    }
                    (Verdict::Redirected { .. }, None) => {
                        let refused = Verdict::Refused(Cause::of_reply(error));
                        fates[range]
                            .iter_mut()
                            .for_each(|(_, fate)| fate.worsen(refused.clone()));
                    }
                    (verdict, _) => fates[range]
                        .iter_mut()
                        .for_each(|(_, fate)| fate.worsen(verdict.clone())),
                }
            }
        }
        fates
    }

    /// How to send an operation again, if it must be.
    fn follow_up(&mut self, planned: Planned, at: usize, verdict: Verdict, is_last: bool) -> Option<Way> {
        let Planned { item, way, .. } = planned;
        let op = self.items[item as usize].op();
        let (mapping, stores) = (op.mapping, matches!(op.action, Action::Store { .. }));
        match verdict {
            Verdict::Done | Verdict::Fatal(_) | Verdict::Redirected { .. } => None,
            // A later operation on the key has been sent since, and decides.
            _ if !is_last => None,
            Verdict::Later(_) => Some(way),
            Verdict::WrongType(_) if way == Way::AsWritten => Some(Way::Replaced),
            Verdict::WrongType(_) | Verdict::NoMemory(_) if way == Way::AsWritten || way == Way::Replaced => {
                Some(self.turn(item, Way::Deleted))
            }
            _ if way == Way::Condemned => None,
            Verdict::WrongType(cause) | Verdict::NoMemory(cause) | Verdict::Refused(cause) => {
                let reason = LossReason::Refused(cause);
                self.give_up(item, Loss { mapping, reason, at });
                // Where the deletion itself was refused, there is nothing left to try.
                (stores && way != Way::Deleted).then_some(Way::Condemned)
            }
        }
    }

    /// Keeps the answers to deletions that were asked for one.
    fn note_answers(&mut self, part: usize, replies: &[Value]) {
        for (step, reply) in self.parts[part].steps.iter().zip(replies) {
            let item = self.plan[step.first as usize].item;
            let asked = matches!(
                self.items[item as usize].op().action,
                Action::Delete { answer: Some(_) }
            );
            if let (true, Value::Int(deleted)) = (asked, reply) {
                self.answers.push((item, *deleted as u64));
            }
        }
    }
}

/// What ASK says holds for the moment: who has to wait, if only for an exchange, asks again.
fn forget_asked(plan: &mut [Planned]) {
    plan.iter_mut().for_each(|planned| planned.asked = None);
}

/// What became of an operation.
#[derive(Clone, Debug)]
enum Fate {
    Judged(Verdict),
    /// One of its commands belongs to another master, or for this time to the one with this number.
    Redirected(Option<u16>),
    /// Not known.
    Lost,
}

impl Fate {
    /// A redirection says that the operation has not run, or not whole: it goes again, unless it is refused. What else
    /// was said of it may be because of that.
    fn redirect(&mut self, asked: Option<u16>) {
        match self {
            Self::Judged(Verdict::Done | Verdict::WrongType(_) | Verdict::NoMemory(_))
            | Self::Redirected(_) => {
                *self = Self::Redirected(asked);
            }
            Self::Judged(_) | Self::Lost => {}
        }
    }

    fn worsen(&mut self, other: Verdict) {
        match self {
            Self::Judged(verdict) => verdict.worsen(other),
            Self::Redirected(_) if matches!(other, Verdict::WrongType(_) | Verdict::NoMemory(_)) => {}
            Self::Redirected(_) => *self = Self::Judged(other),
            Self::Lost => {}
        }
    }
}
