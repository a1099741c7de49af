"""Search for the fewest layers to keep out of INT8 so that an INT8 file keeps its budgets."""

from typing import Dict, List, Optional, Sequence, Tuple

from edgecount.toolchain.quantize import sensitivity
from edgecount.toolchain.quantize.agreement import Agreement
from edgecount.toolchain.quantize.forms import Forms, ranked
from edgecount.toolchain.quantize.judge import Verdict
from edgecount.toolchain.quantize.plan import Plan, Say, Tuned, Yardsticks, sparing
from edgecount.toolchain.quantize.precision import PrecisionRules

_POINTS = 100.0


class Search:
    """For the fewest layers that keep the budgets."""

    def __init__(
        self,
        forms: Forms,
        by: Yardsticks,
        plan: Plan,
        calibrator: str,
        tried: Dict[str, Verdict],
        say: Say,
    ) -> None:
        self._forms = forms
        self._by = by
        self._plan = plan
        self._calibrator = calibrator
        self._tried = tried
        self._say = say
        self._damage: Dict[str, Agreement] = {}
        self._sensitivity: Optional[sensitivity.Sensitivity] = None

    def run(self) -> Tuned:
        order = self._order() if self._excess(()) > 0 else []
        found = sensitivity.smallest_set(order, self._excess, 0.0)
        spared, grown = self._confirmed(found.layers)
        forms = self._finished(spared)
        made = forms(self._rules(spared))
        final = self._by.judge(made)
        scene = self._by.scene
        kept = found.within and (grown is None or grown <= self._plan.count_error)
        return Tuned(
            model=made,
            table=self._forms.table,
            calibrator=self._calibrator,
            tried=self._tried,
            fp32=self._by.judge.fp32,
            final=final,
            loss=self._by.judge.fp32 - final.ap50,
            within=kept,
            spared=spared,
            sets=found.tried,
            sensitivity=self._sensitivity,
            damage=self._damage,
            agreement=scene(made) if scene else None,
            bought=self._bought(spared),
            corrected=bool(forms.corrections),
            scale=forms.scale,
            count_grown=grown,
        )

    def _order(self) -> List[str]:
        """The layers, the worst first; measured when it is first asked for."""
        if self._by.scene is not None:
            if not self._damage:
                self._say("measuring what each layer does to the scene")
                self._damage = ranked(self._forms, self._by.scene)
            return list(self._damage)
        if self._sensitivity is None:
            self._say("measuring each layer's damage")
            judge = self._by.ranking or self._by.judge
            self._sensitivity = sensitivity.measure(
                self._forms.model, self._forms.table, judge, reverse=False
            )
        return self._sensitivity.ranked

    def _rules(self, spared: Sequence[str]) -> PrecisionRules:
        return sparing(self._plan, spared)

    def _excess(self, spared: Sequence[str]) -> float:
        """By how much a budget is broken that counts have no part in; 0 or less: none is."""
        form = self._forms(self._rules(spared))
        number = f"{len(spared)} layers spared"
        lacking = 0.0
        if self._by.scene is not None:
            seen = self._by.scene(form)
            lacking = self._plan.agreement - seen.f1
            number = f"{number}: {agreeing(seen)}"
        if lacking > 0:
            self._say(number)
            return lacking
        verdict = self._by.judge(form)
        self._say(f"{number}: AP50 {verdict.ap50:.2f}")
        return self._by.judge.fp32 - verdict.ap50 - self._plan.budget

    def _finished(self, spared: Sequence[str]) -> Forms:
        if self._by.scene is None:
            return self._forms
        return self._forms.scaled(self._rules(spared), self._by.scene)

    def _confirmed(self, spared: List[str]) -> Tuple[List[str], Optional[int]]:
        """Count with the set that was found; with larger ones while the error is over its budget.

        Returns the first within the budget, else the one with the least error.
        """
        if self._by.counted is None:
            return spared, None
        counted: List[Tuple[int, List[str]]] = []
        for turn in range(self._plan.confirmations):
            layers = spared + self._worst_besides(spared, 2**turn - 1)
            if any(layers == known for _, known in counted):
                break  # no layer is left to spare
            form = self._finished(layers)(self._rules(layers))
            grown = self._by.counted(form)
            self._say(f"counted with {len(layers)} layers spared: count error {grown:+d}")
            counted.append((grown, layers))
            if grown <= self._plan.count_error:
                break
        grown, layers = min(counted, key=lambda pair: pair[0])
        return layers, grown

    def _worst_besides(self, spared: Sequence[str], count: int) -> List[str]:
        return [name for name in self._order() if name not in spared][:count] if count else []

    def _bought(self, spared: Sequence[str]) -> Dict[str, float]:
        """What agreement each spared layer buys, in points, when all the others are spared."""
        scene = self._by.scene
        if scene is None or not spared:
            return {}
        whole = scene(self._forms(self._rules(spared))).f1
        return {
            name: _POINTS * (whole - scene(self._forms(self._rules(others))).f1)
            for name in spared
            for others in [[other for other in spared if other != name]]
        }


def told(verdict: Verdict, seen: Optional[Agreement]) -> str:
    """What a form is worth, for people."""
    text = f"AP50 {verdict.ap50:.2f}, SQNR {verdict.sqnr_db:.1f} dB"
    return text if seen is None else f"{text}, {agreeing(seen)}"


def agreeing(seen: Agreement) -> str:
    """How far a form sees what FP32 sees, for people."""
    return f"agreement {seen.f1:.3f}, logits {seen.apart:.3f} apart"
