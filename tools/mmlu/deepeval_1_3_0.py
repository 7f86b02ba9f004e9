"""Which questions does deepeval 1.3.0 ask when it is told to measure all of MMLU?

XRIGHT (https://github.com/heshandevaka/XRIGHT), the code of the paper, pins deepeval 1.3.0. This script runs the MMLU
class of that release, unchanged, on Hendrycks' CSV files with a model that counts what it is asked. It needs no PyTorch:
the imports that the class does not need for this question are stubs.

    pip download --no-deps deepeval==1.3.0 -d DIR
    python3 deepeval_1_3_0.py DIR/deepeval-1.3.0-py3-none-any.whl path/to/mmlu

`path/to/mmlu` holds `dev/NAME_dev.csv` and `test/NAME_test.csv`. The README of this folder has the output.
"""

import csv
import sys
import types
import zipfile
from pathlib import Path


def stub(name, **attributes):
    module = types.ModuleType(name)
    for key, value in attributes.items():
        setattr(module, key, value)
    sys.modules[name] = module
    return module


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        for question, a, b, c, d, target in csv.reader(file):
            yield {"input": question, "A": a, "B": b, "C": c, "D": d, "target": target}


def load_class(wheel, data, loaded):
    """The MMLU class and the list of tasks of the wheel, with `load_dataset` reading CSV files."""

    def load_dataset(_, subject, **__):
        loaded.append(subject)
        train = list(rows(data / "dev" / f"{subject}_dev.csv"))
        test = list(rows(data / "test" / f"{subject}_test.csv"))
        return {"train": train, "test": test}

    class Golden:
        def __init__(self, input, expected_output):
            self.input = input
            self.expected_output = expected_output

    class Benchmark:
        def __init__(self, **_):
            self.dataset = None

    class Scorer:
        def exact_match_score(self, expected, found):
            return int(expected.strip() == found.strip())

    class Schema:
        def __init__(self, answer):
            self.answer = answer

    stub("datasets", load_dataset=load_dataset)
    stub("pandas", DataFrame=lambda rows, columns: rows)
    stub("tqdm", tqdm=lambda rows, desc=None: rows)
    for package in ["deepeval", "deepeval.benchmarks", "deepeval.benchmarks.mmlu"]:
        stub(package, __path__=[])
    stub("deepeval.dataset", Golden=Golden)
    stub("deepeval.benchmarks.base_benchmark", DeepEvalBaseBenchmark=Benchmark)
    stub("deepeval.models", DeepEvalBaseLLM=object)
    stub("deepeval.benchmarks.utils", should_use_batch=lambda *_: False)
    stub("deepeval.scorer", Scorer=Scorer)
    stub("deepeval.benchmarks.schema", MultipleChoiceSchema=Schema)
    with zipfile.ZipFile(wheel) as archive:
        for name in ["task", "template", "mmlu"]:
            full = f"deepeval.benchmarks.mmlu.{name}"
            module = stub(full)
            source = archive.read(f"deepeval/benchmarks/mmlu/{name}.py").decode()
            exec(compile(source, f"{wheel}/{name}.py", "exec"), module.__dict__)
    return sys.modules["deepeval.benchmarks.mmlu.mmlu"].MMLU, Schema


def main():
    wheel, data = sys.argv[1], Path(sys.argv[2])
    loaded = []
    benchmark, schema_class = load_class(wheel, data, loaded)
    prompts = []

    class Model:
        def generate(self, prompt, schema):
            prompts.append(prompt)
            return schema_class("A")

    measured = benchmark(n_shots=1)
    sys.stdout, terminal = open("/dev/null", "w"), sys.stdout
    measured.evaluate(Model())
    sys.stdout = terminal

    headers = {prompt.split("\n", 1)[0] for prompt in prompts}
    questions = {prompt.rsplit("\n\n", 1)[1] for prompt in prompts}
    everything = sum(len(list(rows(path))) for path in sorted((data / "test").glob("*_test.csv")))
    print(f"datasets loaded      {len(loaded)} ({', '.join(loaded)})")
    print(f"questions asked      {len(prompts)}")
    print(f"subjects in headers  {len(headers)}")
    print(f"distinct questions   {len(questions)}")
    print(f"questions of MMLU    {everything}")


if __name__ == "__main__":
    main()
