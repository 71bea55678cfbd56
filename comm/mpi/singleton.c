/* What MPI need not do for a process that no launcher started. */

#include "comm/mpi/singleton.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What mpirun, srun and other launchers leave in the environment. */
static const char *const launcher_marks[] = {
    "OMPI_COMM_WORLD_", "OMPI_MCA_ess",  "OMPI_MCA_orte", "PMI",  "HYDRA_",
    "MPIRUN_",          "SLURM_PROCID=", "FLUX_",         "JSM_", "ALPS_",
};

/* orte_create_session_dirs: isolated processes share one name, so of two that
 * run at once the first to end would remove the directory under the other.
 * HWLOC_COMPONENTS: -x86 would visit every core in turn, and wait for the busy
 * ones; the kernel tells the same. */
static const char *const settings[][2] = {
    {"OMPI_MCA_ess_singleton_isolated", "1"},
    {"OMPI_MCA_orte_create_session_dirs", "0"},
    {"OMPI_MCA_pml", "ob1"},
    {"OMPI_MCA_btl", "self"},
    {"HWLOC_COMPONENTS", "-gl,-opencl,-pci,-x86"},
};

static bool is_launched(void)
{
    for (char **variable = environ; *variable; variable++)
        for (size_t i = 0; i < sizeof launcher_marks / sizeof *launcher_marks;
             i++)
            if (strncmp(*variable, launcher_marks[i],
                        strlen(launcher_marks[i])) == 0)
                return true;
    return false;
}

void mm_mpi_prepare_singleton(void)
{
    if (is_launched())
        return;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        setenv(settings[i][0], settings[i][1], 0);
}
