// checkpoint: looks into files of weights, checks them, converts them, makes fresh ones.
#include "app_main.h"
#include "mdm/pipeline/checkpoint_job.h"

int main(int argc, char** argv) { return mdm::app_main(argc, argv, mdm::checkpoint_app_info(), mdm::run_checkpoint); }
