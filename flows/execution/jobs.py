"""The job of each task of a plan, by what its stage does."""

from __future__ import annotations

from melmill.flows.pipeline.graph import Node
from melmill.flows.planning.phases import ancestors
from melmill.flows.planning.plan import Plan
from melmill.flows.tasks.job import Job, Source
from melmill.flows.tasks.report import Ancestor, ReportJob
from melmill.flows.tasks.shard import ShardJob
from melmill.flows.tasks.task import ALL_SHARDS, Task
from melmill.flows.tasks.training import TrainingJob
from melmill.stages.contract import Kind, TrainingStage
from melmill.stages.numeric.errors import StageError
from melmill.stages.report.contract import ReportStage


class JobMaker:
    """Make the jobs of the tasks of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._store = plan.pipeline.store
        self._nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}

    def __call__(self, task: Task, attempt: int, isolated: bool) -> Job:
        """Return the job of a task.

        Parameters
        ----------
        task : Task
        attempt : int
            Number of the attempt, from 1.
        isolated : bool
            Process each utterance in a child process. Tasks over whole corpora ignore this.

        Raises
        ------
        StageError
            The stage lacks the method that makes its product.
        """
        node = self._nodes[task.node]
        stage = node.stage
        if isinstance(stage, TrainingStage):
            return TrainingJob(
                store=self._store,
                node=Source.of(node),
                stage=stage,
                pool=str(node.route),
                attempt=attempt,
                ports=self._ports(node),
                catalogue=self._catalogue(node),
            )
        if isinstance(stage, ReportStage):
            before = ancestors(self._nodes, node.name)
            return ReportJob(
                store=self._store,
                node=Source.of(node),
                stage=stage,
                pool=str(node.route),
                attempt=attempt,
                ancestors={name: self._ancestor(other) for name, other in self._nodes.items() if name in before},
                record_name=self._plan.record_name(node, ALL_SHARDS),
                pipeline=self._plan.pipeline.name,
            )
        if node.is_whole:
            methods = "report()" if node.product.kind is Kind.REPORT else "train()"
            raise StageError(
                f"node {node.name!r}: stage {stage.uses!r} makes a {node.product.kind}, so it needs a method {methods}"
            )
        return ShardJob(
            store=self._store,
            node=Source.of(node),
            stage=stage,
            pool=str(node.route),
            attempt=attempt,
            ports=self._ports(node),
            catalogue=self._catalogue(node),
            shard=task.shard,
            isolated=isolated,
            time_limit_s=self._plan.pipeline.time_limit_s,
        )

    def _ports(self, node: Node) -> dict[str, Source]:
        return {port: Source.of(self._nodes[names[0]]) for port, names in node.inputs.items()}

    def _catalogue(self, node: Node) -> tuple[str, str]:
        corpus = self._nodes[node.corpora[0]]
        return corpus.folder, corpus.key

    def _ancestor(self, node: Node) -> Ancestor:
        return Ancestor(
            source=Source.of(node),
            uses=node.stage.uses,
            version=node.stage.version,
            parameters=node.parameters,
            inputs=node.inputs,
            catalogue=self._catalogue(node),
        )
