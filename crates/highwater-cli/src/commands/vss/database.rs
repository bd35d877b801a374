//! Which database is selected, and what it says.

use std::path::PathBuf;
use std::sync::Arc;

use highwater::{Error, Kind, Result};
use highwater_vss::{Backend, Postgres, Refusal, Sqlite, StoreName};

use crate::cli::{VssDatabaseArgs, VssStoreArgs};
use crate::context::Context;

/// What is opened, and by whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    Server,
    /// Beside a server that may run.
    Administrator,
}

enum Database {
    Dir(PathBuf),
    Postgres(String),
}

/// Opens the database of the flags, else of the environment or the settings file.
pub(super) async fn open(
    context: &Context,
    args: &VssDatabaseArgs,
    by: As,
) -> Result<Arc<dyn Backend>> {
    let env = context.env();
    Ok(match database(context, args)? {
        Database::Dir(dir) => Arc::new(match by {
            As::Server => Sqlite::serve(&dir, env)?,
            As::Administrator => Sqlite::administer(&dir, env)?,
        }),
        Database::Postgres(url) => Arc::new(Postgres::connect(&url, env.clone()).await?),
    })
}

fn database(context: &Context, args: &VssDatabaseArgs) -> Result<Database> {
    if let Some(dir) = &args.data_dir {
        return Ok(Database::Dir(dir.clone()));
    }
    if let Some(url) = &args.postgres {
        return Ok(Database::Postgres(url.clone()));
    }
    let settings = context.settings.vss();
    match (&settings.data_dir, &settings.postgres) {
        (Some(_), Some(_)) => {
            Err(Error::input("the settings name both a directory and a PostgreSQL database"))
        }
        (Some(dir), None) => Ok(Database::Dir(dir.clone())),
        (None, Some(url)) => Ok(Database::Postgres(url.clone())),
        (None, None) => Err(Error::input("no database was given").with_remedy(
            "give --data-dir or --postgres, set HIGHWATER_POSTGRES, or write either under [vss] in \
             highwater.toml",
        )),
    }
}

pub(super) fn store(args: &VssStoreArgs) -> StoreName {
    StoreName { user: args.user.clone(), id: args.store.clone() }
}

/// Not found where a store is not there: its user or its id is mistyped.
pub(super) async fn refuse_missing(backend: &Arc<dyn Backend>, store: &StoreName) -> Result<()> {
    if backend.sizes(store, &[]).await.map_err(told)?.is_there {
        return Ok(());
    }
    let (user, id) = (store.user.escape_debug(), store.id.escape_debug());
    Err(Error::not_found(format!("the user `{user}` has no store `{id}` here"))
        .with_remedy("`highwater vss stats --stores 100` lists all users and their stores"))
}

/// What an administrator is told.
pub(super) fn told(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Conflict(why) => Error::new(Kind::Conflict, why),
        Refusal::Invalid(why) => Error::input(why),
        Refusal::Failed(error) => error,
    }
}
