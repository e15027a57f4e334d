// SPDX-License-Identifier: MIT
//
// Instruction tuning, as in the paper's Table 1: a LLaMA trained on general text learns to respond
// to instructions; what is measured is the loss of the response.
//
//   instructions --general=wikitext2_train.txt --train=instructions_train.jsonl
//                --held-out=instructions_test.jsonl --prompt=instruction,input --response=output

#include "study/program.hpp"

int main(int count, char** arguments) {
  study::Experiment experiment = study::response_experiment();
  experiment.name = "instructions";
  experiment.description =
      "A LLaMA trained on general text learns to respond to instructions by adapters";
  experiment.task = study::instructions;
  return study::run_program(experiment, count, arguments);
}
