//! From rules to a BPF program.
//!
//! The program tells the architecture, then finds the call's number by binary search over ranges
//! of numbers with the same outcome. A range that depends on arguments holds a chain of rules.
//!
//! Meaning of a set of rules for one call: rules with arguments are tried in their order, the
//! first whose comparisons all hold decides; then the first rule without arguments; then the
//! default. When the default is an error other than ENOSYS, calls with numbers above all that the
//! rules mention answer ENOSYS: to the profile they do not exist, and programs must be able to fall
//! back.

use std::collections::BTreeMap;

use sys::seccomp::Instruction;

use super::profile::{Argument, Operator};
use crate::error::{Error, Result};

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JA: u16 = 0x05;
const RET: u16 = 0x06;

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The bit that marks x32 calls among x86_64 ones.
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// The answer to calls of architectures that are not in the profile.
pub(super) const KILL: u32 = 0;
pub(super) const ENOSYS: u32 = 0x0005_0000 | 38;

/// Rules of one call on one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) conditional: Vec<(Vec<Argument>, u32)>,
    pub(super) plain: Option<u32>,
}

/// Rules by number.
pub(super) type Calls = BTreeMap<u32, Call>;

/// An architecture's section.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) audit: u32,
    pub(super) calls: Calls,
}

fn op(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

pub(super) fn program(
    sections: &[Section],
    x32: Option<&Calls>,
    default: u32,
) -> Result<Vec<Instruction>> {
    let mut result = vec![op(LOAD, 0, 0, ARCHITECTURE)];
    for section in sections {
        let mut body = vec![op(LOAD, 0, 0, NUMBER)];
        if section.audit == super::AUDIT_X86_64 {
            let other = match x32 {
                Some(calls) => search(&ranges(calls, X32_BIT, u32::MAX, default))?,
                None => vec![op(RET, 0, 0, KILL)],
            };
            let native = search(&ranges(&section.calls, 0, X32_BIT - 1, default))?;
            body.extend(branch(X32_BIT, native, other)?);
        } else {
            body.extend(search(&ranges(&section.calls, 0, u32::MAX, default))?);
        }
        let length = u32::try_from(body.len()).map_err(|_| too_long())?;
        result.push(op(JEQ, 1, 0, section.audit));
        result.push(op(JA, 0, 0, length));
        result.extend(body);
    }
    result.push(op(RET, 0, 0, KILL));
    let result = share_returns(&result).unwrap_or(result);
    if result.len() > 4096 { Err(too_long()) } else { Ok(result) }
}

/// The same program with fewer instructions: jumps to equal outcomes lead to one place where it is near enough. The
/// kernel translates each instruction anew for each process that gets the filter.
///
/// `None` if a jump would become too long, which leaving things out makes unlikely.
fn share_returns(program: &[Instruction]) -> Option<Vec<Instruction>> {
    // From the end, so that where jumps lead is known; positions are counted from there.
    let mut reversed: Vec<Instruction> = Vec::with_capacity(program.len());
    let mut places: Vec<Option<usize>> = vec![None; program.len()];
    let mut returns: BTreeMap<u32, usize> = BTreeMap::new();
    for (index, instruction) in program.iter().enumerate().rev() {
        if instruction.code == RET {
            // Placed when something leads to it.
            continue;
        }
        let mut lead = |distance: usize, reach: usize, more: usize| -> Option<usize> {
            let target = index.checked_add(distance)?.checked_add(1)?;
            if let Some(place) = *places.get(target)? {
                return Some(place);
            }
            let end = program.get(target)?;
            let near = |place: usize| reversed.len() + more - place <= reach;
            if let Some(place) = returns.get(&end.k).copied().filter(|place| near(*place)) {
                return Some(place);
            }
            reversed.push(*end);
            returns.insert(end.k, reversed.len() - 1);
            Some(reversed.len() - 1)
        };
        let new = match instruction.code {
            JEQ | JGT | JGE => {
                // The other branch may add a return.
                let yes = lead(instruction.jt.into(), 255, 1)?;
                let no = lead(instruction.jf.into(), 255, 0)?;
                let distance = |place: usize| u8::try_from(reversed.len() - place - 1).ok();
                op(instruction.code, distance(yes)?, distance(no)?, instruction.k)
            }
            JA => {
                let place = lead(usize::try_from(instruction.k).ok()?, usize::MAX, 0)?;
                let distance = u32::try_from(reversed.len() - place - 1).ok()?;
                op(JA, 0, 0, distance)
            }
            _ => {
                let next = lead(0, 1, 0)?;
                if next + 1 != reversed.len() {
                    return None;
                }
                *instruction
            }
        };
        reversed.push(new);
        *places.get_mut(index)? = Some(reversed.len() - 1);
    }
    reversed.reverse();
    Some(reversed)
}

fn too_long() -> Error {
    Error::spec("seccomp profile", "is too long: the kernel takes 4096 instructions at most")
}

/// What happens from a number on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    call: Call,
}

/// Cuts the numbers from `first` to `last` into ranges of the same outcome.
fn ranges(calls: &Calls, first: u32, last: u32, default: u32) -> Vec<Range> {
    let plain = |action| Call { conditional: Vec::new(), plain: Some(action) };
    let mut result = vec![Range { first, call: plain(default) }];
    let mut push = |first: u32, call: Call| {
        // Replace what begins at the same number, and join equal neighbours.
        if result.last().is_some_and(|range: &Range| range.first == first) {
            result.pop();
        }
        if result.last().is_none_or(|range: &Range| range.call != call) {
            result.push(Range { first, call });
        }
    };
    let mut highest = None;
    for (number, call) in calls.range(first..=last) {
        let mut call = call.clone();
        call.plain = Some(call.plain.unwrap_or(default));
        push(*number, call);
        if *number < last {
            push(*number + 1, plain(default));
        }
        highest = Some(*number);
    }
    if let Some(highest) = highest
        && hides_new_calls(default)
        && highest < last
    {
        push(highest + 1, plain(ENOSYS));
    }
    result
}

/// Whether unknown calls get ENOSYS in place of the default.
pub(super) fn hides_new_calls(default: u32) -> bool {
    default & 0xffff_0000 == 0x0005_0000 && default != ENOSYS
}

fn search(ranges: &[Range]) -> Result<Vec<Instruction>> {
    match ranges {
        [] => Ok(vec![op(RET, 0, 0, KILL)]),
        [one] => leaf(&one.call),
        many => {
            let (low, high) = many.split_at(many.len() / 2);
            let middle = high.first().map_or(0, |range| range.first);
            branch(middle, search(low)?, search(high)?)
        }
    }
}

/// `high` when the number is at least `middle`, else `low`.
fn branch(middle: u32, low: Vec<Instruction>, high: Vec<Instruction>) -> Result<Vec<Instruction>> {
    let mut result = Vec::with_capacity(low.len() + high.len() + 2);
    match u8::try_from(low.len()) {
        Ok(distance) => result.push(op(JGE, distance, 0, middle)),
        Err(_) => {
            let distance = u32::try_from(low.len()).map_err(|_| too_long())?;
            result.push(op(JGE, 0, 1, middle));
            result.push(op(JA, 0, 0, distance));
        }
    }
    result.extend(low);
    result.extend(high);
    Ok(result)
}

/// The end of a search: a chain of conditional rules, then the plain outcome.
fn leaf(call: &Call) -> Result<Vec<Instruction>> {
    let mut result = Vec::new();
    for (arguments, action) in &call.conditional {
        let mut body = vec![op(RET, 0, 0, *action)];
        for argument in arguments.iter().rev() {
            body = compare(argument, body)?;
        }
        result.extend(body);
    }
    result.push(op(RET, 0, 0, call.plain.unwrap_or(KILL)));
    Ok(result)
}

/// Puts a comparison before `rest`; where it fails, control goes to what follows `rest`.
fn compare(argument: &Argument, rest: Vec<Instruction>) -> Result<Vec<Instruction>> {
    // Little-endian: the low half comes first.
    let low = ARGUMENTS + 8 * argument.index;
    let high = low + 4;
    let (v_low, v_high) = (argument.value as u32, (argument.value >> 32) as u32);
    let length: usize = match argument.op {
        Operator::Eq | Operator::Ne => 4,
        Operator::MaskedEq => 6,
        Operator::Gt | Operator::Ge | Operator::Lt | Operator::Le => 5,
    };
    let total = length + rest.len();
    // Distances from instruction `at`.
    let fail = |at: usize| u8::try_from(total - at - 1).map_err(|_| too_long());
    let pass = |at: usize| u8::try_from(length - at - 1).map_err(|_| too_long());
    let mut code = match argument.op {
        Operator::Eq => vec![
            op(LOAD, 0, 0, high),
            op(JEQ, 0, fail(1)?, v_high),
            op(LOAD, 0, 0, low),
            op(JEQ, 0, fail(3)?, v_low),
        ],
        Operator::Ne => vec![
            op(LOAD, 0, 0, high),
            op(JEQ, 0, pass(1)?, v_high),
            op(LOAD, 0, 0, low),
            op(JEQ, fail(3)?, 0, v_low),
        ],
        Operator::Gt | Operator::Ge => vec![
            op(LOAD, 0, 0, high),
            op(JGT, pass(1)?, 0, v_high),
            op(JEQ, 0, fail(2)?, v_high),
            op(LOAD, 0, 0, low),
            op(if argument.op == Operator::Gt { JGT } else { JGE }, 0, fail(4)?, v_low),
        ],
        Operator::Lt | Operator::Le => vec![
            op(LOAD, 0, 0, high),
            op(JGT, fail(1)?, 0, v_high),
            op(JEQ, 0, pass(2)?, v_high),
            op(LOAD, 0, 0, low),
            op(if argument.op == Operator::Lt { JGE } else { JGT }, fail(4)?, 0, v_low),
        ],
        Operator::MaskedEq => {
            let (w_low, w_high) = (argument.value_two as u32, (argument.value_two >> 32) as u32);
            vec![
                op(LOAD, 0, 0, high),
                op(AND, 0, 0, v_high),
                op(JEQ, 0, fail(2)?, w_high),
                op(LOAD, 0, 0, low),
                op(AND, 0, 0, v_low),
                op(JEQ, 0, fail(5)?, w_low),
            ]
        }
    };
    code.extend(rest);
    Ok(code)
}
