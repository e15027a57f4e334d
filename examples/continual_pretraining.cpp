// SPDX-License-Identifier: MIT
//
// Continual pretraining, as in the paper's Table 1: a LLaMA trained on general text learns another
// kind of text. What it learns, and what it forgets of the first.
//
//   continual_pretraining --general=wikitext2_train.txt --general-held-out=wikitext2_test.txt
//                         --train=pubmed_train.txt --held-out=pubmed_test.txt

#include "study/program.hpp"

int main(int count, char** arguments) {
  return study::run_program(
      {.name = "continual_pretraining",
       .description = "A LLaMA trained on general text learns another kind of text by adapters",
       .quick = study::quick_fine_tuning(),
       .full = study::full_fine_tuning(),
       .task = study::continual_pretraining},
      count, arguments);
}
