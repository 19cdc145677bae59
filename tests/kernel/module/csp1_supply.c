// SPDX-License-Identifier: GPL-2.0-only
/*
 * csp1_supply - a fixed supply for a chip without a device tree.
 *
 * A chip made by hand (i2c-stub and new_device) has no supply, and a driver
 * that derives its scale from one cannot report it. Load this module before
 * the chip is made:
 *
 *   insmod csp1_supply.ko consumer=1-0022 supply=vcc microvolts=3300000
 *
 * For Linux 6.1 and later.
 */
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/regulator/driver.h>
#include <linux/regulator/machine.h>

static char *consumer;
static char *supply = "vcc";
static int microvolts = 3300000;

module_param(consumer, charp, 0444);
MODULE_PARM_DESC(consumer, "name of the device that it supplies");
module_param(supply, charp, 0444);
MODULE_PARM_DESC(supply, "name of the supply in its driver");
module_param(microvolts, int, 0444);

static struct platform_device *board;

static const struct regulator_ops supply_ops = { };

static struct regulator_desc supply_desc = {
	.name = "csp1-supply",
	.type = REGULATOR_VOLTAGE,
	.owner = THIS_MODULE,
	.ops = &supply_ops,
	.n_voltages = 1,
};

static int supply_probe(struct platform_device *pdev)
{
	struct regulator_consumer_supply consumers[] = { REGULATOR_SUPPLY(supply, consumer) };
	struct regulator_init_data data = {
		.constraints = { .always_on = true },
		.num_consumer_supplies = ARRAY_SIZE(consumers),
		.consumer_supplies = consumers,
	};
	struct regulator_config config = { .dev = &pdev->dev, .init_data = &data };

	supply_desc.fixed_uV = microvolts;
	return PTR_ERR_OR_ZERO(devm_regulator_register(&pdev->dev, &supply_desc, &config));
}

static struct platform_driver supply_driver = {
	.driver = { .name = "csp1_supply" },
};

static int __init supply_init(void)
{
	if (!consumer)
		return -EINVAL;
	board = platform_create_bundle(&supply_driver, supply_probe, NULL, 0, NULL, 0);
	return PTR_ERR_OR_ZERO(board);
}

static void __exit supply_exit(void)
{
	platform_device_unregister(board);
	platform_driver_unregister(&supply_driver);
}

module_init(supply_init);
module_exit(supply_exit);

MODULE_DESCRIPTION("Fixed supply of a chip on a simulated bus, for tests");
MODULE_LICENSE("GPL");
