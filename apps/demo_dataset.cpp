// demo_dataset: captioned pictures to train small models on, and a judge of what the models draw.
#include "app_main.h"
#include "mdm/demo/dataset_job.h"

int main(int argc, char** argv) {
  return mdm::app_main(argc, argv, mdm::demo_dataset_app_info(), mdm::run_demo_dataset);
}
