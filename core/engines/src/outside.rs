//! Handlers that ask the outside world, written as if the answers were there already.
//!
//! A handler is a function of its transaction and of the answers so far. Where it asks what has no answer yet, it
//! stops; the question becomes a side operation, and with its answer the whole function runs again, over a new
//! transaction, reading again all that it relies on. So nothing survives a question but the answer to it, and what a
//! client sees rests on one version of the image. A question must come out the same in each run: nothing random in it.

use ringfence_logical::{Cx, Error, Outcome, Response, SideOp, SideResult, Step};
pub use ringfence_logical::{HttpAnswer, HttpAsk};
use std::sync::Arc;

/// Most questions of one request.
const MAX_QUESTIONS: usize = 24;

/// An answer, or why there is none.
pub type Answered = Result<Arc<HttpAnswer>, String>;

/// The answers so far.
#[derive(Clone, Default)]
pub struct Outside {
    answers: Vec<(HttpAsk, Answered)>,
}

/// Why a handler ends early.
pub enum Stop {
    /// It needs this answer first.
    Ask(Box<HttpAsk>),
    /// It refuses.
    Refuse(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Stop {
        Stop::Refuse(e)
    }
}

impl Outside {
    /// The answer to a question.
    pub fn ask(&self, ask: HttpAsk) -> Result<Answered, Stop> {
        match self.answers.iter().find(|(asked, _)| *asked == ask) {
            Some((_, answer)) => Ok(answer.clone()),
            None if self.answers.len() >= MAX_QUESTIONS => {
                Err(Stop::Refuse(Error::internal("a request asks the outside world too many questions")))
            }
            None => Err(Stop::Ask(Box::new(ask))),
        }
    }
}

/// Runs a handler until it has every answer that it asks for.
pub fn run<F>(cx: &mut Cx<'_, '_>, handler: F) -> Outcome
where
    F: Fn(&mut Cx<'_, '_>, &Outside) -> Result<Option<Response>, Stop> + Clone + Send + 'static,
{
    with(cx, Outside::default(), handler)
}

fn with<F>(cx: &mut Cx<'_, '_>, so_far: Outside, handler: F) -> Outcome
where
    F: Fn(&mut Cx<'_, '_>, &Outside) -> Result<Option<Response>, Stop> + Clone + Send + 'static,
{
    match handler(cx, &so_far) {
        Ok(response) => Ok(Step::Done(response)),
        Err(Stop::Refuse(e)) => Err(e),
        Err(Stop::Ask(ask)) => Ok(Step::Side {
            op: SideOp::Http(ask.clone()),
            resume: Box::new(move |cx, result| {
                let answer = match result {
                    SideResult::Http(answer) => Ok(answer.clone()),
                    SideResult::Failed(why) => Err(why.clone()),
                    _ => Err("the question got no answer".to_owned()),
                };
                let mut more = so_far.clone();
                more.answers.push(((*ask).clone(), answer));
                with(cx, more, handler.clone())
            }),
        }),
    }
}
