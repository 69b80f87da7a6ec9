/*
 * What the kernel itself charges for a container: all namespaces, an overlay as root filesystem, pivot_root, /proc,
 * exec, wait. floor LOWER UPPER WORK PROGRAM
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/sched.h>
#include <unistd.h>

static void need(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		_exit(125);
	}
}

int main(int argc, char **argv)
{
	struct clone_args args;
	char options[4096];
	int status;
	pid_t pid;

	if (argc != 5) {
		fprintf(stderr, "usage: floor LOWER UPPER WORK PROGRAM\n");
		return 2;
	}
	memset(&args, 0, sizeof(args));
	args.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
	args.exit_signal = SIGCHLD;
	pid = syscall(SYS_clone3, &args, sizeof(args));
	need(pid, "clone3");
	if (pid == 0) {
		snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s", argv[1], argv[2], argv[3]);
		need(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "mount /");
		need(mount("overlay", argv[2], "overlay", 0, options), "mount overlay");
		need(chdir(argv[2]), "chdir");
		need(syscall(SYS_pivot_root, ".", "."), "pivot_root");
		need(umount2(".", MNT_DETACH), "umount");
		need(mount("proc", "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "mount /proc");
		execl(argv[4], argv[4], (char *)NULL);
		need(-1, argv[4]);
	}
	need(waitpid(pid, &status, 0), "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
