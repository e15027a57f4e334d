// SPDX-License-Identifier: MIT
//
// Mathematics, as in the paper's Table 1: a LLaMA trained on general text learns to answer word
// problems in steps. At this size it learns their form; what is measured is the loss of the answer.
//
//   mathematics --general=wikitext2_train.txt --train=gsm8k_train.jsonl
//               --held-out=gsm8k_test.jsonl --prompt=question --response=answer

#include "study/program.hpp"

int main(int count, char** arguments) {
  study::Experiment experiment = study::response_experiment();
  experiment.name = "mathematics";
  experiment.description =
      "A LLaMA trained on general text learns to answer word problems by adapters";
  experiment.task = study::mathematics;
  return study::run_program(experiment, count, arguments);
}
